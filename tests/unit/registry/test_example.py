"""Example workspaces: of any size, the same from the same seed, and whole."""

from datetime import UTC, datetime
from statistics import fmean

import pytest

from tests.unit.registry.workspace import tables
from uni_moe import cli
from uni_moe.artifacts import Layout
from uni_moe.audit_evidence import audited
from uni_moe.errors import ConfigError
from uni_moe.registry import read
from uni_moe.registry.cards import json_lines
from uni_moe.registry.example.curves import course, keys
from uni_moe.registry.example.making import Sizes, make_example
from uni_moe.registry.example.running import keep_running
from uni_moe.registry.indexing import index
from uni_moe.registry.live import live
from uni_moe.registry.score_questions import scores_of
from uni_moe.workspace import make_workspace

RUNS, POINTS, NODES = 30, 5_000, 200
UNTIL = datetime(2026, 3, 1, tzinfo=UTC)


def quiet(_):
    pass


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    layout = Layout(tmp_path_factory.mktemp("example") / "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("UNI_MOE_DATABASE_URL", raising=False)
        counts = make_example(layout.root, Sizes(RUNS, POINTS, NODES), UNTIL, quiet)
    return layout, counts


@pytest.fixture(autouse=True)
def _own_index(monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)


def test_an_example_is_as_large_as_it_is_asked_for(example):
    _, counts = example
    assert counts["runs"] == RUNS
    assert counts["points"] == pytest.approx(POINTS, rel=0.1)
    assert NODES <= counts["artifacts"] < NODES + 40


def test_every_question_to_an_example_has_an_answer(example):
    layout, _ = example
    (version,) = read.models(layout)
    assert version.is_champion
    assert version.model_folder.is_dir()
    assert [reign.number for reign in read.history(layout)] == [1]
    assert live(layout).champions[0].model == version.model
    scores = scores_of(layout, [version.report], "modality")[version.report]
    assert set(scores) == {"text", "image", "video", "audio", "speech"}
    assert len(read.lineage(layout, version.model).up) == 28
    best = read.top_runs(layout, "loss/audio", 3, "smallest")
    assert best[0].last > 0
    told = read.metric_keys(layout, best[0].run)
    assert {"learning_rate", "gradient_norm", "wait_share"} <= set(told)
    assert len(read.curve(layout, best[0].run, "loss")) == told["loss"].points


def test_some_runs_of_an_example_went_wrong(example):
    layout, _ = example
    runs = read.runs(layout)
    assert {run.status for run in runs} == {"done", "failed", "died"}
    assert all(run.error for run in runs if run.status == "failed")
    told = [row for run in runs for row in json_lines(run.folder / "events.jsonl")]
    assert {row["kind"] for row in told if row["event"] == "alarm"} == {
        "gradient_spike",
        "dead_expert",
    }
    odd = [run for run in runs if "NaN" in _metrics(run)]
    assert len(odd) == 1
    assert any(value.value != value.value for value in read.curve(layout, odd[0].id, "loss"))


def _metrics(run):
    file = run.folder / "metrics.jsonl"
    return file.read_text() if file.is_file() else ""


def test_the_audit_log_of_an_example_is_whole(example):
    layout, _ = example
    checked = audited(layout)
    assert not checked.problems
    assert [entry.event for entry in checked.entries] == ["registration", "promotion"]


def test_importing_an_example_again_changes_nothing(example):
    layout, counts = example
    before = tables(layout)
    assert index(layout) == counts
    assert tables(layout) == before


def test_the_same_seed_gives_the_same_example(example, tmp_path):
    layout, _ = example
    again, other = Layout(tmp_path / "again"), Layout(tmp_path / "other")
    make_example(again.root, Sizes(RUNS, POINTS, NODES), UNTIL, quiet)
    make_example(other.root, Sizes(RUNS, POINTS, NODES, seed=1), UNTIL, quiet)
    found = [tables(one) for one in (layout, again, other)]
    for one in found:
        one.pop("owner")
    assert found[0] == found[1] != found[2]


def test_versions_get_better_and_those_that_are_old_are_let_go(tmp_path):
    layout = Layout(tmp_path / "many")
    make_example(layout.root, Sizes(400, 5_000), UNTIL, quiet)
    versions = read.models(layout)
    ends = [versions[0].report, versions[-1].report]
    scores = scores_of(layout, ends, "modality")
    means = [fmean(one.score for one in scores[report].values()) for report in ends]
    assert means[0] < means[1]
    assert {one.verdict for one in versions} == {"promoted", "refused"}
    here = [one for one in versions if one.model_folder.is_dir()]
    assert len(here) < len(versions)
    assert not audited(layout).problems


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(ConfigError, match="not empty"):
        make_example(tmp_path, Sizes(RUNS, POINTS), UNTIL, quiet)


def test_an_example_too_small_for_its_shapes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="too few"):
        make_example(tmp_path / "new", Sizes(3, 5), UNTIL, quiet)
    assert not (tmp_path / "new").exists()


def test_an_example_in_a_shared_database_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("UNI_MOE_DATABASE_URL", "postgresql+psycopg://nobody@nowhere/it")
    with pytest.raises(ConfigError, match="another database"):
        make_example(tmp_path / "new", Sizes(RUNS, POINTS), UNTIL, quiet)


def test_the_command_makes_an_example(tmp_path, capsys):
    folder = tmp_path / "new"
    assert cli.main(["registry", "example", str(folder), "--runs", "30", "--points", "900"]) == 0
    said = capsys.readouterr().out
    assert "runs           30" in said
    assert f"uni-moe --workspace {folder} dashboard" in said


def test_a_run_that_goes_on_writes_a_step_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("uni_moe.registry.example.running.EVERY_S", 0.0)
    layout = Layout(make_workspace(tmp_path / "example", "playground"))
    keep_running(layout, most=3)
    (run,) = read.runs(layout)
    rows = list(json_lines(run.folder / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert set(rows[0]) - {"step", "time"} == set(keys("tune"))


def test_curves_are_shaped_as_trainings_are():
    found = course("tune", 1000, seed=3)
    rate, loss = found.of["learning_rate"], found.of["loss"]
    assert rate[0] == 0.0
    assert rate.argmax() == pytest.approx(50, abs=2)
    assert rate[-1] < rate.max() / 1000
    assert loss[-100:].mean() < loss[:10].mean() / 2
    assert found.of["memory/peak_bytes"][-1] == found.of["memory/bytes"].max()
    assert course("tune", 1000, seed=3, share=0.25).steps == 250
