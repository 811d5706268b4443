"""A PostgreSQL server for tests: of its own, on loopback, in a folder that goes with it."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.stores.servers import PATIENCE_S, free_ports

_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
_USER = "postgres"  # the server refuses root


@contextmanager
def postgres() -> Iterator[str]:
    """Start a server, give the address of an empty database, and stop it."""
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    if not _PLACES:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="uni-moe-postgres-"))
    owner = _owner(folder)
    port = free_ports(1)
    process = None
    try:
        _run(["initdb", "-D", f"{folder}/data", "-U", "moe", "--auth=trust", "--no-sync"], owner)
        process = subprocess.Popen(
            [
                _PLACES[0] / "postgres",
                *("-D", folder / "data", "-p", str(port), "-h", "127.0.0.1", "-k", folder),
                *("-c", "fsync=off"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **owner,
        )
        _wait(psycopg, f"host=127.0.0.1 port={port} user=moe dbname=postgres")
        yield f"postgresql+psycopg://moe:planted-secret@127.0.0.1:{port}/postgres"
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # what PostgreSQL calls a fast shutdown
            process.wait(PATIENCE_S)
        shutil.rmtree(folder)


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


def _wait(psycopg, told: str) -> None:
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
