import fcntl
import os
import subprocess
import sys
import threading
import time

import pytest

from uni_moe.alone import first_free, in_turn, is_at, nobody_else, one_standing, only_one
from uni_moe.artifacts import Layout
from uni_moe.errors import StageError

HOLD = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from uni_moe.alone import only_one\n"
    "from uni_moe.artifacts import Layout\n"
    "with only_one(Layout(Path(sys.argv[1])), 'tune'):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


def test_a_stage_runs_once_at_a_time_and_a_killed_one_holds_nothing(tmp_path):
    layout = Layout(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StageError, match="Another process runs tune"), only_one(layout, "tune"):
            pass
        with only_one(layout, "align@image"):
            pass
    finally:
        holder.kill()
        holder.wait()
    with only_one(layout, "tune"):
        pass


def test_the_first_thing_that_nobody_is_at_is_taken(tmp_path):
    layout = Layout(tmp_path)
    names = ("one", "two", "three")
    with first_free(layout, names) as first, first_free(layout, names) as second:
        assert (first, second) == ("one", "two")
        assert is_at(layout, "one")
        assert not is_at(layout, "three")
    assert not is_at(layout, "one")
    with first_free(layout, names) as again:
        assert again == "one"


def test_who_only_looks_whether_somebody_is_at_a_thing_does_not_take_it(tmp_path):
    layout = Layout(tmp_path)
    layout.state.mkdir()
    with (layout.state / "one.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        threading.Timer(0.05, fcntl.flock, (stream, fcntl.LOCK_UN)).start()
        with first_free(layout, ("one", "two")) as name:
            assert name == "one"


def test_who_waits_for_a_turn_gets_it(tmp_path):
    layout, order = Layout(tmp_path), []

    def second():
        with in_turn(layout, "landing"):
            order.append("second")

    with in_turn(layout, "landing"):
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.1)
        order.append("first")
    waiting.join(5)
    assert order == ["first", "second"]


def test_a_stage_ends_with_the_dvc_that_started_it(tmp_path):
    stage = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from uni_moe.alone import end_with_starter\n"
        "end_with_starter(launched=False)\n"
        "Path(sys.argv[1]).write_text(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    parent = (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]])\n"
    )
    file = tmp_path / "pid"
    dvc = subprocess.Popen(
        [sys.executable, "-c", parent, stage, str(file)], env={**os.environ, "DVC_STAGE": "tune"}
    )
    wait_for(lambda: file.exists() and file.read_text())
    dvc.kill()
    dvc.wait()
    wait_for(lambda: not is_alive(int(file.read_text())))


def is_alive(pid):
    psutil = pytest.importorskip("psutil")
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_for(question):
    deadline = time.monotonic() + 20
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_stage_that_never_ran_does_not_begin_while_somebody_has_the_workspace(tmp_path):
    layout = Layout(tmp_path)
    with nobody_else(layout):
        with pytest.raises(StageError, match="for itself"), only_one(layout, "never ran"):
            raise AssertionError
        with pytest.raises(StageError, match="for itself"), first_free(layout, ["apart-1"]):
            raise AssertionError
    busy = pytest.raises(StageError, match="works")
    with first_free(layout, ["apart-1"]), busy, nobody_else(layout):
        raise AssertionError


def test_whoever_stands_is_not_at_work(tmp_path):
    layout = Layout(tmp_path)
    with one_standing(layout, "up"), nobody_else(layout):
        assert is_at(layout, "up")
