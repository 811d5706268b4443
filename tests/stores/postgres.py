"""A PostgreSQL server for tests: of its own, on loopback, in a folder that goes with it."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.stores.servers import PATIENCE_S, free_ports

_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
_USER = "postgres"  # the server refuses root


class Postgres:
    """A server of PostgreSQL with its folder; it may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_ports(1)
        self.url = f"postgresql+psycopg://moe:planted-secret@127.0.0.1:{self.port}/postgres"
        self._owner = _owner(folder)
        self._process: subprocess.Popen[bytes] | None = None
        words = ["initdb", "-D", f"{folder}/data", "-U", "moe", "--auth=trust", "--no-sync"]
        _run(words, self._owner)

    def start(self) -> None:
        """Start it, which recovers what a kill left, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                _PLACES[0] / "postgres",
                *("-D", self.folder / "data", "-p", str(self.port), "-h", "127.0.0.1"),
                *("-k", self.folder, "-c", "fsync=off"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **self._owner,
        )
        _wait(f"host=127.0.0.1 port={self.port} user=moe dbname=postgres")

    def kill(self) -> None:
        """Kill it with every process that serves somebody, as `kill -9` does."""
        if self._process is not None:
            pids = _family(self._process.pid)
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it as PostgreSQL's fast shutdown does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(PATIENCE_S)
            self._process = None


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Start a server with an empty database, and stop it."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if not _PLACES:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="uni-moe-postgres-"))
    server = None
    try:
        server = Postgres(folder)
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder)


@contextmanager
def postgres() -> Iterator[str]:
    """Start a server, give the address of an empty database, and stop it."""
    with postgres_server() as server:
        yield server.url


def _family(pid: int) -> list[int]:
    """Return a server's process and all it started: each has a process group of its own."""
    head = psutil.Process(pid)
    return [pid, *(child.pid for child in head.children(recursive=True))]


def _owner(folder: Path) -> dict[str, str]:
    """Return as whom a server runs, who then owns the folder."""
    if os.getuid() != 0:
        return {}
    known = pwd.getpwnam(_USER)
    os.chown(folder, known.pw_uid, known.pw_gid)
    return {"user": _USER, "group": _USER}


def _run(words: list[str], owner: dict[str, str]) -> None:
    subprocess.run(
        [_PLACES[0] / words[0], *words[1:]], check=True, stdout=subprocess.DEVNULL, **owner
    )


def _wait(told: str) -> None:
    import psycopg

    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            psycopg.connect(told).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
