import json
import os
import pwd
import re
import tomllib
from pathlib import Path

import pytest

from uni_moe.artifacts import Layout
from uni_moe.runs import environment, start_run, user

ROOT = Path(__file__).parents[2]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_tells_how_it_ended(tmp_path):
    with start_run(Layout(tmp_path), "align@image", {"seed": 1}) as run:
        during = json.loads((run.folder / "run.json").read_text())
        run.metric(1, {"loss": 2.5})
        run.event("state", step=1)
        assert lines(run.folder / "metrics.jsonl")[0]["loss"] == 2.5
    after = json.loads((run.folder / "run.json").read_text())
    assert (during["status"], after["status"]) == ("running", "done")
    assert after["duration_s"] >= 0
    assert lines(run.folder / "heartbeat.jsonl")


def test_a_run_that_fails_says_why(tmp_path):
    with pytest.raises(ValueError, match="boom"), start_run(Layout(tmp_path), "tune", {}) as run:
        raise ValueError("boom")
    record = json.loads((run.folder / "run.json").read_text())
    assert record["status"] == "failed"
    assert "boom" in record["error"]


def test_no_variable_says_who_runs_a_process(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody else")
    assert user() == pwd.getpwuid(os.getuid()).pw_name


def test_a_user_without_a_name_is_told_by_number(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert user() == "uid 4000000000"


def test_installing_what_tests_need_changes_no_recorded_environment():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = told["optional-dependencies"]
    running = [*told["dependencies"], *extras["train"], *extras["ops"]]
    names = {re.match(r"[\w-]+", line)[0].lower() for line in running}
    names.add("triton")  # torch brings it where there is an accelerator
    assert set(environment()["packages"]) <= names
