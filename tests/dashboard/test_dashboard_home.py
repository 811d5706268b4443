"""Home: one look at what is live, what runs, what is broken, and the questions people ask."""

import json
from datetime import UTC, datetime

import pytest

from dashboard.sources import runs
from tests.dashboard.pages import opened, said
from tests.dashboard.registered import HOSTILE, break_log, marked
from tests.unit.registry.workspace import write_run
from uni_moe.artifacts import Layout, read_json, write_json
from uni_moe.registry.indexing import index

QUESTIONS = (
    "What made this model?",
    "What changed since the champion before?",
    "Why was the last challenger rejected?",
    "Why is it worse on audio?",
    "Which expert is dead?",
    "Which samples were refused, and why?",
    "What ran last night?",
    "What was live on a date?",
    "Can this sample be removed, and what follows?",
    "Is it reproducible?",
)
STARTED = '{"status": "done", "stage": "tune", "started": "2026-03-01T00:00:00"}'


def links(app):
    return {one.proto.label.replace("\\", ""): one.proto for one in app.get("page_link")}


def test_an_empty_workspace_says_what_to_do_and_lists_the_questions(tmp_path, monkeypatch):
    app = opened(monkeypatch, tmp_path)
    assert not app.exception
    assert "No model is live" in said(app)
    assert "Nothing runs." in said(app)
    assert set(QUESTIONS) <= links(app).keys()


def test_one_version_is_live_with_its_score_and_its_verdict(one_version, monkeypatch):
    app = opened(monkeypatch, one_version.root)
    assert not app.exception
    for words in ("Version 1 is live", "60\\.0 %", "promoted", "Nothing known:"):
        assert words in said(app)


def test_after_a_rollback_home_tells_both_the_last_retraining_and_the_way_back(many, monkeypatch):
    app = opened(monkeypatch, many.root)
    assert not app.exception
    shown = said(app).replace("\\", "")
    assert "Version 1 is live" in shown
    assert "not judged by the gate" in shown  # version 4
    assert "forgotten by bob" in shown
    assert "rolled back to version 1" in shown


def test_the_questions_lead_to_the_versions_that_they_are_about(many, monkeypatch):
    asked = {name: one.query_string for name, one in links(opened(monkeypatch, many.root)).items()}
    assert asked["Why was the last challenger rejected?"] == "version=2&view=verdicts"
    assert asked["What changed since the champion before?"] == "view=difference&a=3&b=1"
    assert asked["Is it reproducible?"] == "version=1&view=reproducible"
    assert asked["What ran last night?"] == "since=24h"
    assert asked["Why is it worse on audio?"] == "version=4&against=1&items=audio"


def test_runs_show_their_true_state_and_how_far_they_are(tmp_path, monkeypatch):
    layout = Layout(tmp_path)
    row = json.dumps({"step": 7, "loss": 0.25}) + "\n"
    folder = write_run(layout, "20260101T000000-tune-1", metrics=row)
    (folder / "events.jsonl").write_text(json.dumps({"event": "training", "steps": 10}) + "\n")
    write_run(layout, "20260101T000001-tune-2", silent_s=300)
    app = opened(monkeypatch, tmp_path)
    assert not app.exception
    shown = said(app).replace("\\", "")
    assert "step 7 of 10, loss 0.25" in shown
    assert "tune died" in shown
    assert "1 running" in shown
    assert "1 died" in shown


def test_failures_and_alarms_of_the_last_days_stand_there_harmless(tmp_path, monkeypatch):
    layout = Layout(tmp_path)
    folder = write_run(layout, "20260101T000000-tune-1", status="failed")
    record = read_json(folder / "run.json") | {"error": HOSTILE}
    write_json(folder / "run.json", record)
    alarm = {"event": "alarm", "kind": "spike", "step": 3, "text": HOSTILE, "time": None}
    alarm["time"] = datetime.now(UTC).isoformat()
    (folder / "events.jsonl").write_text(json.dumps(alarm) + "\n")
    app = opened(monkeypatch, tmp_path)
    assert not app.exception
    shown = said(app)
    assert "tune failed" in shown
    assert "alarm of tune" in shown
    assert "<script>" not in marked(app)
    assert "](http" not in marked(app)


def test_a_broken_audit_log_is_told_on_home(one_version, monkeypatch):
    break_log(one_version)
    app = opened(monkeypatch, one_version.root)
    assert not app.exception
    assert "The audit log is broken" in said(app)


@pytest.mark.parametrize("text", ['{"id": 3', '{"status": "done", "stage": "tune"}', STARTED])
def test_a_run_folder_that_cannot_be_read_is_named_and_hides_no_other(tmp_path, monkeypatch, text):
    layout = Layout(tmp_path)
    write_run(layout, "20260101T000000-tune-1")
    broken = write_run(layout, "20260101T000001-tune-2")
    (broken / "run.json").write_text(text)
    (layout.runs / "notes.txt").write_text("mine")
    app = opened(monkeypatch, tmp_path)
    assert not app.exception
    assert "cannot be read: 20260101T000001-tune-2" in links(app)
    assert "1 running" in said(app)


@pytest.mark.parametrize("moment", ["never", "2026-03-01T00:00:00", 7, None, "0001-01-01T00:00+14"])
def test_an_alarm_at_a_moment_that_nobody_can_read_breaks_nothing(tmp_path, monkeypatch, moment):
    folder = write_run(Layout(tmp_path), "20260101T000000-tune-1")
    alarm = {"event": "alarm", "kind": "spike", "step": 3, "text": "high", "time": moment}
    (folder / "events.jsonl").write_text(json.dumps(alarm) + "\n")
    app = opened(monkeypatch, tmp_path)
    assert not app.exception
    assert "alarm of tune" in said(app)


def test_failures_are_counted_in_all_and_the_link_lists_those_of_the_same_days(
    tmp_path, monkeypatch
):
    layout = Layout(tmp_path)
    for number in range(23):
        write_run(layout, f"20260101T0000{number:02}-tune-1", status="failed")
    old = write_run(layout, "20250101T000000-tune-1", status="failed")
    long_ago = {"started": "2025-01-01T00:00:00+00:00"}
    write_json(old / "run.json", read_json(old / "run.json") | long_ago)
    index(layout)
    write_run(layout, "20260101T000100-tune-1", status="failed")  # of which the index is silent
    asked = {name: one.query_string for name, one in links(opened(monkeypatch, tmp_path)).items()}
    assert asked["24 failed in 7 days"] == "status=failed&since=7d"


def test_runs_that_are_too_many_to_be_looked_into_are_told(tmp_path, monkeypatch):
    layout = Layout(tmp_path)
    monkeypatch.setattr(runs, "_MOST_FRESH", 2)
    for number in range(3):
        write_run(layout, f"20260101T0000{number:02}-tune-1", status="done")
    shown = said(opened(monkeypatch, tmp_path)).replace("\\", "")
    assert "does not know 3 runs; 1 older ones are not looked into" in shown
