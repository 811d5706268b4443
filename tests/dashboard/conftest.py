"""A dashboard that serves, and Debian's Chromium before it."""

import socket
import subprocess
import time
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from benchmarks.browser import CHROMIUM, chromium
from dashboard.serving import ADDRESS, command

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def browser():
    """Chromium, for the walks of a file: while its driver lives, this process has no other loop."""
    if not CHROMIUM.is_file():
        pytest.skip("no Chromium: `apt-get install chromium`")
    with chromium() as started:
        yield started


@contextmanager
def serving(workspace, environment=None):
    """Serve a workspace's dashboard; give its address."""
    with closing(socket.socket()) as free:
        free.bind((ADDRESS, 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        command(Path(workspace), port=port),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        wait(f"http://{ADDRESS}:{port}/_stcore/health", process)
        yield f"http://{ADDRESS}:{port}"
    finally:
        process.terminate()
        process.wait(30)


def wait(address, process):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the dashboard ended"
        try:
            with urlopen(address, timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise AssertionError("the dashboard does not answer")


def still(page):
    """Wait until a page has shown all."""
    page.locator("[data-testid=stStatusWidget]").wait_for(state="detached", timeout=60_000)
    page.wait_for_timeout(250)
