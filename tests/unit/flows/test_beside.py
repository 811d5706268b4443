import os
import signal
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from dashboard.serving import command
from flows.beside import MOST_DEATHS, Beside, Program
from flows.embedded import free_port

PATIENCE_S = 60


def until(true):
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def answers(address):
    try:
        with urlopen(address, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture
def said():
    return []


def test_the_dashboard_stands_beside_comes_back_when_it_died_and_ends(tmp_path, said):
    pytest.importorskip("streamlit", reason="the dashboard is not installed")
    port = free_port()
    _, _, module, *words = command(tmp_path, port=port)
    beside = Beside(Program("dashboard", module, words, port), tmp_path, tmp_path, said.append)
    beside.begin()
    try:
        until(lambda: answers(f"{beside.program.page}/_stcore/health"))
        assert beside.facts()["dashboard"] == f"http://127.0.0.1:{port}"
        first = beside.process.pid
        os.kill(first, signal.SIGKILL)
        beside.process.wait()
        beside.look_after()
        assert beside.process.pid != first
        assert "died and is started again" in said[0]
        until(lambda: answers(f"{beside.program.page}/_stcore/health"))
        second = beside.process.pid
    finally:
        beside.end()
    assert not Path(f"/proc/{second}").exists()
    assert beside.facts() == {}


def test_what_dies_again_and_again_is_left_out(tmp_path, said):
    beside = Beside(
        Program("it", "no.such.module", (), free_port()), tmp_path, tmp_path, said.append
    )
    beside.begin()
    for _ in range(MOST_DEATHS + 1):
        beside.process.wait()
        beside.look_after()
    assert beside.process is None
    assert "left out" in said[-1]
    assert "no.such.module" in (tmp_path / "it.log").read_text()
    beside.look_after()


def test_a_taken_port_leaves_it_out_and_is_told(tmp_path, said):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        beside = Beside(
            Program("dashboard", "http.server", (), port), tmp_path, tmp_path, said.append
        )
        beside.begin()
    assert beside.process is None
    assert said == [
        f"the dashboard is left out: port {port} is taken; `--dashboard-port` names another one"
    ]
