"""The ends of live files: how far a run is, and its alarms. Staleness by cards alone."""

import json

import pytest

from tests.unit.registry.workspace import RULES, candidate, train, write_run
from uni_moe.artifacts import Layout
from uni_moe.audit import Asked
from uni_moe.errors import LineageError
from uni_moe.registry import run_ends, run_lines
from uni_moe.registry.promoting import promote
from uni_moe.registry.staleness import staleness, staleness_by_cards
from uni_moe.registry.write import register


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


def test_progress_comes_from_the_ends_of_a_run_s_files(layout):
    rows = "".join(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in range(1, 5000))
    folder = write_run(layout, "1-tune", metrics=rows + '{"step": 5000, "lo')
    (folder / "events.jsonl").write_text(json.dumps({"event": "training", "steps": 6000}) + "\n")
    assert run_ends.progress(layout, "1-tune") == run_ends.Progress(4999, 6000, 1 / 4999)
    assert run_ends.progress(layout, "none") == run_ends.Progress(None, None, None)


def test_alarms_are_told_newest_first_and_no_more_than_wanted(layout):
    folder = write_run(layout, "1-tune")
    told = [{"event": "alarm", "kind": "spike", "step": n, "text": "x" * 5000} for n in (1, 2, 3)]
    odd = [{"event": "training"}, {"event": "alarm", "step": "?"}, 7]
    lines = "".join(json.dumps(one) + "\n" for one in [*told, *odd])
    (folder / "events.jsonl").write_text(lines)
    runs = [run_lines.line_of(layout, "1-tune")]
    found = run_ends.alarms(layout, runs, 3)
    assert [one.step for one in found] == [None, 3, 2]
    assert len(found[-1].text) == run_lines.LONGEST


def test_live_files_that_are_there_and_cannot_be_read_are_told_and_not_passed_over(layout):
    folder = write_run(layout, "1-tune")
    run = run_lines.line_of(layout, "1-tune")
    (folder / "events.jsonl").mkdir()
    for ask in (
        lambda: run_ends.progress(layout, "1-tune"),
        lambda: run_ends.alarms(layout, [run], 3),
    ):
        with pytest.raises(LineageError, match=r"events\.jsonl cannot be read") as told:
            ask()
        assert "another user" in told.value.cause
    layout.runs.rename(layout.root / "away")
    assert run_lines.folder_names(layout) == []
    layout.runs.write_text("no folder")
    assert run_lines.folder_names(layout) == []


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
