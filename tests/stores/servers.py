"""S3 servers for tests: one in memory that takes any secret, one on disk that checks signatures."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from uni_moe.storage.credentials import Credentials
from uni_moe.storage.remote import Remote
from uni_moe.storage.s3 import S3Bucket

PATIENCE_S = 90
_SWIFT = Path("/usr/bin/swift-proxy-server")
_KINDS = ("account", "container", "object")


@dataclass(frozen=True)
class Server:
    """Where a server listens, and who may use it."""

    endpoint: str
    access_key: str
    secret_key: str

    def credentials(self) -> Credentials:
        return Credentials(self.access_key, self.secret_key, None, "a test")

    def environment(self) -> dict[str, str]:
        return self.credentials().environment()

    def bucket(self, url: str, *, make: bool = True) -> S3Bucket:
        store = S3Bucket(Remote(url, self.endpoint), self.credentials())
        if make:
            store.make_bucket()
        return store


@contextmanager
def moto() -> Iterator[Server]:
    """Serve buckets from memory; any secret is right."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Server(f"http://{host}:{port}", "access", "secret")
    finally:
        server.stop()


class Swift:
    """OpenStack Swift with its S3 door, one node in a folder: it keeps, and checks signatures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_ports(len(_KINDS) + 1)
        self.server = Server(f"http://127.0.0.1:{self.port}", "acct:tester", "only-for-tests")
        self._processes: list[subprocess.Popen[bytes]] = []
        _configure(folder, self.port, self.server)

    def start(self) -> None:
        environment = {**os.environ, "PATH": "/usr/bin:/bin"}
        environment.pop("PYTHONPATH", None)
        self._processes = [
            subprocess.Popen(
                [f"/usr/bin/swift-{kind}-server", str(self.folder / f"{kind}.conf")],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            for kind in (*_KINDS, "proxy")
        ]
        for port in range(self.port, self.port + len(_KINDS) + 1):
            _wait_for(port)

    def stop(self) -> None:
        for process in self._processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes = []


@contextmanager
def swift(folder: Path) -> Iterator[Swift]:
    """Serve buckets from a folder; where Swift is not installed, skip the test."""
    if not _SWIFT.exists():
        pytest.skip(
            "swift is not installed: apt-get install swift-{proxy,account,container,object}"
        )
    served = Swift(folder)
    try:
        served.start()
        yield served
    finally:
        served.stop()


def _configure(folder: Path, port: int, server: Server) -> None:
    (folder / "disk" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = a\nswift_hash_path_prefix = b\n"
        "[storage-policy:0]\nname = only\ndefault = yes\n"
    )
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    common = (
        f"[DEFAULT]\nbind_ip = 127.0.0.1\nuser = {user}\nswift_dir = {folder}\n"
        f"workers = 0\nlog_level = ERROR\n"
    )
    for offset, kind in enumerate(_KINDS, 1):
        (folder / f"{kind}.conf").write_text(
            f"{common}bind_port = {port + offset}\ndevices = {folder / 'disk'}\n"
            f"mount_check = false\nrecon_cache_path = {folder}\n"
            f"[pipeline:main]\npipeline = {kind}-server\n"
            f"[app:{kind}-server]\nuse = egg:swift#{kind}\n"
        )
        ring = ["swift-ring-builder", str(folder / f"{kind}.builder")]
        for words in (
            ["create", "6", "1", "1"],
            ["add", f"r1z1-127.0.0.1:{port + offset}/d1", "1"],
            ["rebalance"],
        ):
            subprocess.run([*ring, *words], check=True, stdout=subprocess.DEVNULL)
    account, _, name = server.access_key.partition(":")
    filters = {
        "s3api": "location = us-east-1\nauth_pipeline_check = false\n",
        "tempauth": f"user_{account}_{name} = {server.secret_key} .admin\n",
        "cache": "memcache_servers = 127.0.0.1:1\n",
    }
    eggs = {"cache": "memcache"}
    road = ("catch_errors", "gatekeeper", "cache", "listing_formats", "bulk", "s3api", "tempauth")
    road = (*road, "slo", "dlo", "versioned_writes", "symlink")
    (folder / "proxy.conf").write_text(
        f"{common}bind_port = {port}\n[pipeline:main]\npipeline = {' '.join(road)} proxy-server\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
        + "".join(
            f"[filter:{step}]\nuse = egg:swift#{eggs.get(step, step)}\n{filters.get(step, '')}"
            for step in road
        )
    )


def free_ports(count: int) -> int:
    """Return the first of so many free ports in a row."""
    for first in range(21_000 + os.getpid() % 1_000 * 5, 32_000, count):
        with _all_bound(first, count) as free:
            if free:
                return first
    raise AssertionError("no free ports")


@contextmanager
def _all_bound(first: int, count: int) -> Iterator[bool]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for offset, one in enumerate(sockets):
            one.bind(("127.0.0.1", first + offset))
        yield True
    except OSError:
        yield False
    finally:
        for one in sockets:
            one.close()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")
