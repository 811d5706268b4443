"""What runs now and what ran lately: the index where it knows, run folders where it is behind."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.registry.workspace import RULES, candidate, train, write_run
from uni_moe.artifacts import Layout, read_json, write_json
from uni_moe.audit import Asked
from uni_moe.registry import lately
from uni_moe.registry.indexing import index
from uni_moe.registry.promoting import promote
from uni_moe.registry.staleness import staleness, staleness_by_cards
from uni_moe.registry.write import register

LONG_AGO = "2000-01-01T00:00:00+00:00"


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


def test_only_folders_are_opened_of_runs_that_are_not_known_to_have_ended(layout):
    done = write_run(layout, "1-tune", status="done")
    index(layout)
    (done / "run.json").unlink()  # who opens it now, fails
    write_run(layout, "2-tune")
    write_run(layout, "3-tune", silent_s=300)
    found = lately.open_runs(layout, lately.ended_runs(layout))
    assert {one.id: one.status for one in found} == {"2-tune": "running", "3-tune": "died"}


def test_a_workspace_without_runs_has_none(layout):
    assert lately.open_runs(layout, lately.ended_runs(layout)) == []
    assert lately.outcomes(layout, LONG_AGO) == {}


def test_outcomes_and_failures_are_those_since_a_moment(layout):
    for name, status in (("1-tune", "done"), ("2-tune", "failed"), ("3-tune", "failed")):
        write_run(layout, name, status=status)
    old = layout.runs / "2-tune" / "run.json"
    write_json(old, read_json(old) | {"started": LONG_AGO})
    index(layout)
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert lately.outcomes(layout, since) == {"done": 1, "failed": 1}
    assert [one.id for one in lately.failures(layout, since, 5)] == ["3-tune"]
    assert [one.id for one in lately.last_runs(layout, since, 1)] in (["1-tune"], ["3-tune"])


def test_progress_comes_from_the_ends_of_a_run_s_files(layout):
    rows = "".join(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in range(1, 5000))
    folder = write_run(layout, "1-tune", metrics=rows + '{"step": 5000, "lo')
    (folder / "events.jsonl").write_text(json.dumps({"event": "training", "steps": 6000}) + "\n")
    assert lately.progress(layout, "1-tune") == lately.Progress(4999, 6000, 1 / 4999)
    assert lately.progress(layout, "none") == lately.Progress(None, None, None)


def test_alarms_are_told_newest_first_and_no_more_than_wanted(layout):
    folder = write_run(layout, "1-tune")
    told = [{"event": "alarm", "kind": "spike", "step": n, "text": "x" * 5000} for n in (1, 2, 3)]
    odd = [{"event": "training"}, {"event": "alarm", "step": "?"}, 7]
    lines = "".join(json.dumps(one) + "\n" for one in [*told, *odd])
    (folder / "events.jsonl").write_text(lines)
    runs = lately.open_runs(layout, ())
    found = lately.alarms(layout, runs, 3)
    assert [one.step for one in found] == [None, 3, 2]
    assert len(found[-1].text) == 1000


def test_cards_alone_tell_what_a_plan_without_stages_tells(layout):
    candidate(layout, "a", 0.6)
    register(layout, reason="try", who="ada")
    promote(layout, "1", RULES, Asked("ada", "good"))
    assert not staleness_by_cards(layout)
    train(layout, "b", raw="other")
    found = staleness_by_cards(layout)
    assert [one.name for one in found.artifacts] == ["artifacts/report"]
    assert found.champion == 1
    assert {one.name for one in found.drifts} == {
        "artifacts/samples/image",
        "artifacts/corpus/image",
    }
    assert found == staleness(layout, {})
