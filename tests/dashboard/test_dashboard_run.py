"""The page of one run, in all states that a run can be in."""

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta

import pyarrow
import pytest

from tests.dashboard.pages import opened, said, sent
from tests.dashboard.run_folders import (
    BEGAN,
    NOBODY,
    append,
    happened,
    layout_of,
    metric,
    now_running,
    write_run,
)
from uni_moe.output import OUTPUT
from uni_moe.registry.indexing import index

SECRET = "words-that-nobody-may-see"
HOSTILE = "<img src=x onerror=alert(1)> [x](javascript:alert(1)) :red[x] $x$ **bold**"


def charts(app):
    return len(app.get("vega_lite_chart"))


def rows_with(app, column):
    """Return the rows of the only chart of a page that have a column."""
    (chart,) = app.get("vega_lite_chart")
    tables = (pyarrow.ipc.open_stream(one.data.data).read_all() for one in chart.proto.datasets)
    (rows,) = (one for one in tables if column in one.column_names)
    return rows.to_pylist()


def curve(app):
    """Return the points of the only chart of a page, step by step; its marks have no value."""
    return [(row["step"], row["value"]) for row in rows_with(app, "value")]


def marks(app):
    """Return what is marked on the only chart of a page, each with its step."""
    return [(row["step"], row["event"]) for row in rows_with(app, "event")]


def progress(app):
    """Return how far a run is, in percent and in words."""
    return [(one.proto.value, one.proto.text) for one in app.get("progress")]


def other_numbers_in_the_index(layout, value):
    """Change what the index says, so that it is seen whose numbers a page shows."""
    losses = "select id from series where key = 'loss'"
    with closing(sqlite3.connect(layout.registry)) as connection, connection:
        words = f"update points set value = ? where series in ({losses})"
        assert connection.execute(words, (value,)).rowcount > 0


def test_without_a_name_the_newest_runs_are_there_to_choose_from(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    app = opened(monkeypatch, layout.root, "run")
    assert "Nothing ran here yet." in said(app)
    write_run(layout, "tune")
    app = opened(monkeypatch, layout.root, "run")
    assert list(app.dataframe[0].value["stage"]) == ["tune"]


@pytest.mark.parametrize("name", ["nobody", HOSTILE, "x" * 10_000])
def test_an_unknown_run_is_told(tmp_path, monkeypatch, name):
    layout = layout_of(tmp_path)
    app = opened(monkeypatch, layout.root, "run", run=name)
    assert not app.exception
    assert "There is no run of this name" in said(app)


@pytest.mark.parametrize("name", ["../../{there}", "{whole}", "./../../{there}", "{own}/../{own}"])
def test_no_path_is_made_of_a_name_though_a_run_lies_there(tmp_path, monkeypatch, name):
    layout = layout_of(tmp_path / "space")
    own = write_run(layout, "tune")
    outside = layout_of(tmp_path / "outside")
    there = write_run(outside, "gate", reason=SECRET, error=SECRET)
    metric(outside, there, 1, **{SECRET: 1.0})
    happened(outside, there, "alarm", kind="leak", text=SECRET)
    name = name.format(there=f"outside/runs/{there}", whole=outside.runs / there, own=own)
    assert (layout.runs / name / "run.json").is_file(), "it must be there to be refused"
    told = opened(monkeypatch, outside.root, "run", run=there)
    assert SECRET in sent(told), "it would be seen where it may"
    for page in ("run", "experts"):
        app = opened(monkeypatch, layout.root, page, run=name)
        assert not app.exception
        assert "no run of this name" in said(app)
        assert SECRET not in sent(app)
    app = opened(monkeypatch, layout.root, "runs", compare=f"{own},{name}")
    assert not app.exception
    assert SECRET not in sent(app)


def test_a_training_that_is_done_is_shown_from_the_index(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    run = write_run(layout, "tune", steps=30, artifacts={"artifacts/model": "a" * 64})
    happened(layout, run, "alarm", kind="loss_leaps", step=9, text="the loss leaps to 7")
    happened(layout, run, "skipped", step=9, back_to=5)
    happened(layout, run, "resumed", step=5, routes={})
    index(layout)
    other_numbers_in_the_index(layout, 7.5)
    app = opened(monkeypatch, layout.root, "run", run=run, charts="Loss")
    assert not app.exception
    assert "tune: ✓ done" in said(app)
    assert curve(app) == [(step, 7.5) for step in range(1, 31)]
    assert progress(app) == []
    assert "3 events, 1 of them alarms" in said(app)
    happenings = next(one.value for one in app.dataframe if "said" in one.value)
    assert list(happenings["what"]) == ["resumed", "went back", "alarm"]
    assert happenings["said"][1] == "went back to step 5 and left step 9 out"
    assert happenings["said"][2] == "loss_leaps: the loss leaps to 7"
    assert "The training went back to step 5 and left step 9 out." in said(app).replace("\\", "")
    assert marks(app) == [(9, "alarm"), (9, "went back"), (5, "resumed")]


def test_a_training_that_is_done_and_in_no_index_is_shown_from_its_folder(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    index(layout)
    run = write_run(layout, "tune", steps=3)
    app = opened(monkeypatch, layout.root, "run", run=run)
    assert curve(app) == [(step, pytest.approx(2 / step)) for step in (1, 2, 3)]


def test_a_run_in_progress_shows_how_far_it_is_from_its_folder_alone(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    run = now_running(layout, steps=4)
    happened(layout, run, "training", step=0, steps=8)
    index(layout)
    app = opened(monkeypatch, layout.root, "run", run=run)
    assert not app.exception
    assert "tune: ▶ running" in said(app)
    assert progress(app) == [(50, "step 4 of 8")]
    first = [(step, pytest.approx(2 / step)) for step in (1, 2, 3, 4)]
    assert curve(app) == first
    other_numbers_in_the_index(layout, 7.5)
    metric(layout, run, 5, loss=0.5)
    metric(layout, run, 6, loss=0.25)
    app.run()
    assert not app.exception
    assert progress(app) == [(75, "step 6 of 8")]
    assert curve(app) == [*first, (5, 0.5), (6, 0.25)]


def test_a_run_in_progress_that_never_told_its_steps_shows_the_last_one(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    app = opened(monkeypatch, layout.root, "run", run=now_running(layout, steps=4))
    assert progress(app) == []
    assert "step 4" in said(app).splitlines()


def test_the_end_of_what_a_stage_said_is_shown_as_it_stands(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    run = now_running(layout, steps=4)
    app = opened(monkeypatch, layout.root, "run", run=run)
    assert "Nothing that it said is kept here." in said(app)
    file = layout.runs / run / OUTPUT
    file.write_text("x" * 100_000 + "\n" + "".join(f"line {i}\n" for i in range(300)) + HOSTILE)
    app.run()
    lines = app.code[0].value.split("\n")
    assert lines == [f"line {i}" for i in range(101, 300)] + [HOSTILE]
    assert app.code[0].language == "plaintext"
    file.write_bytes(b"y" * 100_000 + b"\xff")
    app.run()
    assert app.code[0].value == "y" * 400


def test_a_run_in_progress_without_numbers_says_when_they_come(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    run = now_running(layout)
    app = opened(monkeypatch, layout.root, "run", run=run)
    assert "No numbers yet." in said(app)


def test_a_run_that_died_is_told_dead_whatever_its_record_says(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    run = write_run(layout, "tune", "running", pid=NOBODY, steps=3)
    app = opened(monkeypatch, layout.root, "run", run=run)
    assert "tune: ☠ died" in said(app)
    assert "It died: its signs of life stopped" in said(app)


def test_a_failed_run_shows_its_error_as_text(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    run = write_run(layout, "tune", "failed", error=HOSTILE + "\n" + "y" * 10**6, reason=HOSTILE)
    app = opened(monkeypatch, layout.root, "run", run=run)
    assert not app.exception
    error = next(one.value for one in app.code if "onerror" in one.value)
    assert error.startswith(HOSTILE)
    assert len(error) == 20_000
    assert HOSTILE in [one.value for one in app.text]
    assert not any("<img" in one.value for one in app.markdown)


def test_numbers_that_are_not_finite_are_told_and_break_no_chart(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    run = write_run(layout, "tune", steps=5)
    for step, value in enumerate(("nan", "inf", "-inf", "nan"), start=6):
        metric(layout, run, step, loss=float(value), gradient_norm=float("nan"))
    for source in ("folder", "index"):
        if source == "index":
            index(layout)
        app = opened(
            monkeypatch, layout.root, "run", run=run, charts="Loss", smooth="0.9", log="true"
        )
        assert not app.exception
        assert "Not finite: 1 -inf, 1 inf, 2 nan." in said(app)
    app = opened(monkeypatch, layout.root, "run", run=run, charts="Gradient norm", x="time")
    assert not app.exception
    assert "There is no finite number to draw." in said(app)


def test_a_run_whose_folder_is_gone_is_told_from_the_index(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    run = write_run(layout, "tune", steps=30)
    index(layout)
    shutil.rmtree(layout.runs / run)
    app = opened(monkeypatch, layout.root, "run", run=run)
    assert not app.exception
    assert "The folder of this run is not here any more" in said(app)
    assert charts(app) == 1
    assert "No events are known." in said(app)


def test_stages_of_the_same_flow_run_are_shown_with_their_durations(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    runs = [
        write_run(layout, stage, began=BEGAN + timedelta(minutes=place), flow_run=flow)
        for place, (stage, flow) in enumerate(
            [("ingest", "f"), ("other", "g"), ("tune", "f"), ("gate", "f"), ("late", None)]
        )
    ]
    app = opened(monkeypatch, layout.root, "run", run=runs[2], flow="true")
    assert not app.exception
    assert "Stages of the flow run, minutes" in said(app)
    assert next(one.label for one in app.expander if "flow run" in one.label).startswith("The 3")


def test_strange_lines_of_metrics_and_events_are_left_out(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    run = write_run(layout, "tune", steps=3)
    file = layout.runs / run / "metrics.jsonl"
    append(file, {"step": "x", "loss": 1})
    append(file, {"step": 10**30, "loss": 1})
    append(file, {"step": 4, "loss": 10**400, "text": HOSTILE, "time": "never"})
    append(layout.runs / run / "events.jsonl", {"event": ["a"], "step": 10**30, "time": None})
    append(layout.runs / run / "events.jsonl", {"text": "z" * 10**6, "time": "\u202e"})
    app = opened(monkeypatch, layout.root, "run", run=run)
    assert not app.exception
    assert "Not finite: 1 inf." in said(app)


def test_a_training_of_sources_with_hostile_names_is_drawn(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    run = write_run(layout, "tune")
    for step in range(1, 4):
        metric(layout, run, step, **{f"loss_of_source/{HOSTILE}": 1.0, "loss_of_source/": 2.0})
    app = opened(monkeypatch, layout.root, "run", run=run)
    assert not app.exception
    assert charts(app) == 1


def test_when_a_run_ends_its_page_goes_on_from_the_record(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    run = now_running(layout, steps=4)
    app = opened(monkeypatch, layout.root, "run", run=run)
    file = layout.runs / run / "run.json"
    text = file.read_text().replace('"running"', '"done"')
    file.write_text(text)
    app.run()
    assert not app.exception
    assert "tune: ✓ done" in said(app)
