"""The page of runs: its states, its filters and pages, and the comparison."""

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from tests.dashboard.pages import opened, said
from tests.dashboard.run_folders import (
    BEGAN,
    NOBODY,
    layout_of,
    metric,
    now_running,
    write_run,
)
from uni_moe.artifacts import Layout
from uni_moe.registry.indexing import index

HOSTILE = "<script>alert(1)</script> [x](http://evil) ![p](http://evil/p.png) :red[x] \u202eabc"


def table(app):
    return app.dataframe[-1].value


@pytest.fixture(scope="module")
def sixty(tmp_path_factory):
    """Sixty runs that the index knows; only to be read."""
    layout = layout_of(tmp_path_factory.mktemp("sixty"))
    for number in range(60):
        write_run(
            layout,
            ("ingest", "tune")[number % 2],
            "failed" if number == 7 else "done",
            began=BEGAN + timedelta(hours=number),
            reason=f"reason {number}",
            error="ValueError: it broke\nbelow" if number == 7 else None,
            steps=2 if number % 2 else 0,
        )
    index(layout)
    return layout


def test_an_empty_workspace_says_what_to_do_next(tmp_path, monkeypatch):
    app = opened(monkeypatch, tmp_path, "runs")
    assert not app.exception
    assert "Nothing ran here yet. `uni-moe run`" in said(app)


def test_sixty_runs_stand_on_two_pages_newest_first(sixty, monkeypatch):
    app = opened(monkeypatch, sixty.root, "runs")
    assert "1 to 50 of 60 runs" in said(app)
    assert list(table(app)["why"])[:2] == ["reason 59", "reason 58"]
    app = opened(monkeypatch, sixty.root, "runs", page=2)
    assert not app.exception
    assert "51 to 60 of 60 runs" in said(app)
    assert list(table(app)["why"])[-1] == "reason 0"
    app.text_input(key="why").set_value("reason 3").run()
    assert not app.exception
    assert "1 to 11 of 11 runs" in said(app)


def test_filters_and_order_come_from_the_address(sixty, monkeypatch):
    root = sixty.root
    app = opened(monkeypatch, root, "runs", status="failed")
    assert list(table(app)["error"]) == ["ValueError: it broke"]
    app = opened(monkeypatch, root, "runs", stage="tune", since="2026-03-03", up="true")
    assert list(table(app)["why"])[:2] == ["reason 49", "reason 51"]
    app = opened(monkeypatch, root, "runs", why="REASON 5", until="2026-03-01")
    assert list(table(app)["why"]) == ["reason 5"]


def test_a_page_that_is_too_high_shows_the_last_one(sixty, monkeypatch):
    app = opened(monkeypatch, sixty.root, "runs", page=99)
    assert not app.exception
    assert "51 to 60 of 60 runs" in said(app)


def keys(app):
    """Return the keys of the tables of a page."""
    return {one.proto.id.rpartition("-")[2] for one in app.dataframe}


def test_other_rows_carry_no_selection_over(sixty, tmp_path, monkeypatch):
    layout = Layout(shutil.copytree(sixty.root, tmp_path / "more"))
    before = keys(opened(monkeypatch, layout.root, "runs"))
    assert keys(opened(monkeypatch, layout.root, "runs")) == before
    assert not keys(opened(monkeypatch, layout.root, "runs", status="failed")) & before
    write_run(layout, "gate", began=datetime.now(UTC))
    assert not keys(opened(monkeypatch, layout.root, "runs")) & before


def test_a_filter_that_nothing_fits_says_so(sixty, monkeypatch):
    app = opened(monkeypatch, sixty.root, "runs", why="nowhere")
    assert "No run fits these filters." in said(app)


def test_what_is_no_moment_is_told_with_what_to_write(sixty, monkeypatch):
    app = opened(monkeypatch, sixty.root, "runs", since="yesterday")
    assert not app.exception
    assert "write 2026-03-31 for a day" in said(app)


def test_the_status_is_the_one_of_the_folder(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    write_run(layout, "tune", "running", began=BEGAN, pid=NOBODY)
    running = now_running(layout, steps=4)
    index(layout)
    write_run(layout, "gate", began=datetime.now(UTC) + timedelta(seconds=1))
    app = opened(monkeypatch, layout.root, "runs")
    rows = {row["stage"] + row["status"][2:]: row for _, row in table(app).iterrows()}
    assert set(rows) == {"tunerunning", "tunedied", "gatedone"}
    assert rows["tunerunning"]["last loss"] == "0.5000"
    assert rows["tunerunning"]["run"] == running
    assert "Running now" in said(app)


def test_a_broken_record_leaves_the_others_in_sight(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    broken = write_run(layout, "tune")
    write_run(layout, "gate")
    (layout.runs / broken / "run.json").write_text("[]")
    app = opened(monkeypatch, layout.root, "runs")
    assert list(table(app)["stage"]) == ["gate"]
    assert "1 run folders cannot be read" in app.warning[0].value
    app = opened(monkeypatch, layout.root, "run", run=broken)
    assert "cannot be read" in said(app)


def test_hostile_reasons_are_shown_as_they_are(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    write_run(layout, "tune", reason=HOSTILE + "x" * 10**6, error=HOSTILE)
    app = opened(monkeypatch, layout.root, "runs")
    assert not app.exception
    assert table(app)["why"][0].startswith("<script>")
    assert len(table(app)["why"][0]) == 400


def two_trainings(tmp_path):
    layout = layout_of(tmp_path)
    runs = [
        write_run(layout, "tune", began=BEGAN + timedelta(days=day), steps=20, params=params)
        for day, params in enumerate(({"tune": {"rate": 0.1}}, {"tune": {"rate": 0.2}, "seed": 7}))
    ]
    return layout, runs


def test_compared_runs_show_one_chart_and_the_parameters_that_differ(tmp_path, monkeypatch):
    layout, runs = two_trainings(tmp_path)
    index(layout)
    app = opened(monkeypatch, layout.root, "runs", compare=",".join(runs), x="time")
    assert not app.exception
    assert "2 runs compared" in said(app)
    rows = app.dataframe[0].value
    assert list(rows["parameter"]) == ["seed", "tune.rate"]
    assert list(rows.iloc[1])[1:] == ["0.1", "0.2"]
    shutil.rmtree(layout.runs / runs[0])
    app = opened(monkeypatch, layout.root, "runs", compare=",".join(runs))
    assert not app.exception
    assert "2 runs compared" in said(app)


def test_a_comparison_leaves_out_what_is_not_known(tmp_path, monkeypatch):
    layout, runs = two_trainings(tmp_path)
    wanted = [*runs, "../../etc/passwd", "<script>"]
    app = opened(monkeypatch, layout.root, "runs", compare=",".join(wanted))
    assert not app.exception
    assert "2 runs compared" in said(app)
    assert "One of the runs to compare is not known" in said(app)
    app = opened(monkeypatch, layout.root, "runs", compare=runs[0])
    assert "Two runs or more are compared." in said(app)


def test_runs_without_numbers_can_be_compared_by_their_parameters(tmp_path, monkeypatch):
    layout = layout_of(tmp_path)
    runs = [write_run(layout, "gate", began=BEGAN + timedelta(days=day)) for day in (0, 1)]
    app = opened(monkeypatch, layout.root, "runs", compare=",".join(runs))
    assert not app.exception
    assert "None of these runs told any numbers." in said(app)
    assert "None of 1." in said(app)


def test_numbers_that_are_not_finite_are_told_in_a_comparison(tmp_path, monkeypatch):
    layout, runs = two_trainings(tmp_path)
    metric(layout, runs[0], 21, loss=float("nan"))
    metric(layout, runs[1], 21, loss=float("-inf"))
    index(layout)
    app = opened(monkeypatch, layout.root, "runs", compare=",".join(runs), log="true")
    assert not app.exception
    assert "Not finite: 1 -inf, 1 nan." in said(app)
