"""The gate is asked once about the same two reports by the same rules."""

import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.unit.registry.workspace import RULES, candidate, write_run
from uni_moe.artifacts import Layout, read_json, write_json
from uni_moe.config import Gate
from uni_moe.registry.cards import DEAD_AFTER_S, all_runs
from uni_moe.registry.known import is_judged, last_word
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register
from uni_moe.runs import HEARTBEAT_S, pid_namespace

WAITS = Gate(**{**vars(RULES), "approvals": 1})


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


def judged(layout, weights, share, rules=RULES):
    candidate(layout, weights, share)
    made = register(layout, reason="a test", who="ada")
    return made, promote_if_better(layout, made, rules)


def test_a_refusal_is_the_last_word_until_something_changes(layout):
    judged(layout, "a", 0.7)
    made, verdict = judged(layout, "b", 0.5)
    assert last_word(layout, made.report, RULES) == verdict
    assert is_judged(layout, RULES)
    stricter = replace(RULES, margin=0.01)
    assert last_word(layout, made.report, stricter) is None
    assert not is_judged(layout, stricter)


def test_a_new_champion_makes_an_old_refusal_no_last_word(layout):
    judged(layout, "a", 0.7)
    made, _ = judged(layout, "b", 0.5)
    judged(layout, "c", 0.95)
    assert last_word(layout, made.report, RULES) is None


def test_who_waits_for_approvals_is_asked_again(layout):
    made, verdict = judged(layout, "a", 0.7, WAITS)
    assert verdict.evidence["waits"] == 1
    assert last_word(layout, made.report, WAITS) is None
    assert is_judged(layout, WAITS)


def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    "silent_s, pid, here, status",
    [
        (12, None, True, "died"),  # its process is gone
        (8, None, True, "running"),  # what it wrote last may not be seen yet
        (29, os.getpid(), True, "running"),  # slow, not dead
        (29, None, False, "running"),  # of another machine nothing is known
        (31, None, False, "died"),
        (31, os.getpid(), True, "died"),
    ],
    ids=["gone", "gone just now", "slow", "elsewhere", "elsewhere, for long", "stuck"],
)
def test_a_run_without_its_process_is_dead_sooner_than_after_two_heartbeats(
    layout, silent_s, pid, here, status
):
    folder = write_run(layout, "1-tune", silent_s=silent_s)
    record = read_json(folder / "run.json")
    host = socket.gethostname() if here else "elsewhere"
    write_json(folder / "run.json", {**record, "pid": pid or ended_process(), "host": host})
    assert status_of(layout) == status


def status_of(layout):
    ((_, found),) = all_runs(layout)
    return found["status"]


def test_no_run_is_at_work_that_missed_more_than_two_heartbeats():
    assert DEAD_AFTER_S == 2 * HEARTBEAT_S


def test_a_run_whose_process_ended_and_was_never_asked_how_is_dead(layout):
    folder = write_run(layout, "1-tune", silent_s=12)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        told = {"pid": process.pid, "host": socket.gethostname()}
        write_json(folder / "run.json", {**read_json(folder / "run.json"), **told})
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays as a zombie
        assert status_of(layout) == "died"


@pytest.mark.parametrize("namespace, status", [("pid:[1]", "running"), (pid_namespace(), "died")])
def test_a_process_of_another_container_is_not_looked_for_in_this_one(layout, namespace, status):
    folder = write_run(layout, "1-tune", silent_s=12)
    told = {"pid": ended_process(), "host": socket.gethostname(), "pid_namespace": namespace}
    write_json(folder / "run.json", {**read_json(folder / "run.json"), **told})
    assert status_of(layout) == status
