"""Who is told to end takes what it started with it, however deaf that is."""

import signal
import threading
import time
from pathlib import Path

import pytest

from uni_moe import launch, leash
from uni_moe.machine import Machine

SAYS, DEAF = 'echo $$ > "$0.draft"; mv "$0.draft" "$0"; ', "trap '' TERM; "
SLEEP = "exec sleep 25"


def wait_for(what):
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def runs(pid):
    """Say whether a process is there and no mere entry that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("before", "patience_s"), [("", 20.0), (DEAF, 0.5)])
def test_a_program_behind_the_leash_ends_with_it(before, patience_s, tmp_path):
    told = tmp_path / "pid"
    words = ["sh", "-c", f"{before}{SAYS}{SLEEP}", str(told)]
    process = leash.start("uni_moe.launch", words, folder=Path.cwd(), environment={})
    wait_for(told.exists)
    began = time.monotonic()
    leash.end(process, patience_s)
    pid = int(told.read_text())
    wait_for(lambda: not runs(pid))
    assert process.returncode is not None
    assert time.monotonic() - began < 10


def test_children_may_end_in_order_when_their_parent_has_gone(tmp_path):
    told, books = tmp_path / "pid", tmp_path / "books"
    orderly = f'trap "sleep 0.5; touch {books}; exit" TERM; {SAYS}while :; do sleep 0.05; done'
    words = ["sh", "-c", orderly, str(told)]
    process = leash.start("uni_moe.launch", words, folder=Path.cwd(), environment={})
    wait_for(told.exists)
    leash.end(process, 20.0)
    assert process.returncode == -signal.SIGTERM  # it did not wait
    assert books.exists()


def test_a_stopped_training_leaves_no_rank_behind(tmp_path, monkeypatch):
    told, starter = tmp_path / "pid", tmp_path / "srun"
    starter.write_text(
        f'#!/bin/sh\nset -- "{told}"\necho $$ > "$1.draft"\nmv "$1.draft" "$1"\n{SLEEP}\n'
    )
    starter.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def stop():
        wait_for(told.exists)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    person = threading.Thread(target=stop)
    person.start()
    with pytest.raises(KeyboardInterrupt):
        launch.launch(Machine(launcher="slurm", processes=2), ["tune"])
    person.join()
    pid = int(told.read_text())
    wait_for(lambda: not runs(pid))
