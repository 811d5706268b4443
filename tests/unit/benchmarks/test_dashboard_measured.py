"""The question `dashboard`: every page has content to wait for; MLflow is told of the same runs."""

import json
from datetime import UTC, datetime

from benchmarks import dashboard
from benchmarks.dashboard_beside import SHOWS, THEIR_CONTENT, Theirs, some_run, write_runs
from dashboard.site import PLACES
from uni_moe.artifacts import Layout
from uni_moe.registry.example.making import Sizes, make_example


def test_mlflow_is_told_of_every_run_and_of_one_with_its_curves(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    layout = Layout(tmp_path / "example")
    until = datetime(2026, 3, 1, tzinfo=UTC)
    make_example(layout.root, Sizes(30, 900), until, lambda _: None)
    run = some_run(layout)
    assert write_runs(layout, run, tmp_path / "runs.jsonl") == 30
    told = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert {one["status"] for one in told} == {"FINISHED", "FAILED", "KILLED"}
    points = {one["name"]: len(one["metrics"].get("loss", ())) for one in told}
    assert points.pop(run) > 1
    assert set(points.values()) == {0, 1}


def test_each_page_that_is_compared_has_its_place_and_its_content_at_mlflow():
    theirs = Theirs(None, "http://h/#/experiments/1/runs", {"ours": "theirs"}, "ours")
    assert set(SHOWS) == set(THEIR_CONTENT) <= set(PLACES)
    assert {name: theirs.address_of(name) for name in SHOWS} == {
        "runs": "http://h/#/experiments/1/runs",
        "run": "http://h/#/experiments/1/runs/theirs",
    }


def test_every_page_says_what_its_content_is():
    assert set(dashboard.CONTENT) == set(PLACES)


def test_a_page_that_never_shows_its_content_was_not_measured():
    assert dashboard.told("a page", [0.2, None, 0.4], 0.5, "p").value is None
    assert dashboard.told("a page", [], 0.5, "p").value is None
    assert dashboard.told("a page", [0.2, 0.3, 0.4], 0.5, "p").value == 0.3
