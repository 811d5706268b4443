"""Questions about runs are held against a slow version that reads every folder."""

import itertools
import json
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.dialects import postgresql, sqlite

from tests.dashboard.run_folders import BEGAN, NOBODY, layout_of, metric, now_running, write_run
from uni_moe.artifacts import Layout, read_card, write_artifact
from uni_moe.errors import ConfigError, LineageError
from uni_moe.registry import run_lines
from uni_moe.registry import run_questions as questions
from uni_moe.registry.indexing import index
from uni_moe.registry.read import RunFilter, RunOrder, run_choices, run_page
from uni_moe.registry.spans import since_of, until_of

STAGES = ("ingest", "align@audio", "tune")
REASONS = ("nightly", "100% Nightly_run", None, "after a bug")
NEWEST = RunOrder()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """130 runs that the index knows to their end, two that it does not, two that it never saw."""
    layout = layout_of(tmp_path_factory.mktemp("runs"))
    for number in range(130):
        write_run(
            layout,
            STAGES[number % 3],
            "failed" if number % 7 == 0 else "done",
            began=BEGAN + timedelta(hours=number),
            steps=number % 5,
            user=("ada", "bob", None)[number % 3],
            reason=REASONS[number % 4],
            error="ValueError: first\nsecond" if number % 7 == 0 else None,
        )
    write_run(layout, "tune", "running", began=BEGAN, pid=NOBODY)
    write_run(layout, "tune", "running", began=BEGAN + timedelta(days=1), pid=NOBODY)
    index(layout)
    write_run(layout, "gate", began=BEGAN + timedelta(days=9), steps=3)
    now_running(layout, steps=2)
    return layout


def every_line(layout):
    return [run_lines.line_of(layout, run) for run in run_lines.folder_names(layout)]


def fresh_lines(layout):
    return [run_lines.line_of(layout, run) for run in questions.unsettled(layout).runs]


def by_hand(layout, wanted, order):
    """Filter and sort in Python, what is absent last."""
    lines = [
        line
        for line in every_line(layout)
        if (wanted.stage in (None, line.stage))
        and (wanted.status in (None, line.status))
        and (wanted.user in (None, line.user))
        and (wanted.reason is None or wanted.reason.lower() in (line.reason or "").lower())
        and (wanted.since is None or line.started >= wanted.since)
        and (wanted.until is None or line.started <= wanted.until)
    ]
    there = [line for line in lines if getattr(line, order.by) is not None]
    there.sort(key=lambda line: (getattr(line, order.by), line.id), reverse=order.descending)
    absent = [line for line in lines if getattr(line, order.by) is None]
    absent.sort(key=lambda line: line.id, reverse=order.descending)
    return there + absent


FILTERS = (
    RunFilter(),
    RunFilter(stage="tune"),
    RunFilter(status="failed"),
    RunFilter(status="died"),
    RunFilter(status="running"),
    RunFilter(user="bob", status="done"),
    RunFilter(reason="nightly"),
    RunFilter(reason="100%"),
    RunFilter(reason="y_r"),
    RunFilter(since=(BEGAN + timedelta(hours=40)).isoformat()),
    RunFilter(until=(BEGAN + timedelta(hours=40)).isoformat(), stage="ingest"),
)
ORDERS = ("started", "duration_s", "stage", "status", "user", "loss")


@pytest.mark.parametrize("wanted", FILTERS)
def test_every_filter_order_and_page_is_what_reading_all_folders_gives(workspace, wanted):
    fresh = fresh_lines(workspace)
    for by, descending in itertools.product(ORDERS, (True, False)):
        order = RunOrder(by, descending)
        expected = by_hand(workspace, wanted, order)
        pages = [run_page(workspace, wanted, fresh, order, number) for number in (1, 2, 3)]
        assert [line for page in pages for line in page.lines] == expected[:150]
        assert {page.total for page in pages} == {len(expected)}


def test_without_newer_lines_the_index_alone_is_told(workspace):
    page = run_page(workspace, RunFilter())
    assert page.total == 132
    assert len(page.lines) == questions.PAGE


@pytest.mark.parametrize("wanted", [RunFilter(), RunFilter(stage="tune", user="ada")])
def test_runs_are_counted_by_status_as_by_hand(workspace, wanted):
    found = questions.run_counts(workspace, wanted, fresh_lines(workspace))
    assert found == Counter(line.status for line in by_hand(workspace, wanted, NEWEST))


def test_what_the_index_does_not_know_to_its_end_is_named_newest_first(workspace):
    found = questions.unsettled(workspace)
    assert found.unknown == 2
    assert [run_lines.line_of(workspace, run).status for run in found.runs] == [
        "running",
        "done",
        "died",
        "died",
    ]


def test_an_error_is_told_by_its_first_line(workspace):
    page = run_page(workspace, RunFilter(status="failed"))
    assert {line.error for line in page.lines} == {"ValueError: first"}


def test_choices_are_the_stages_and_people_of_the_index(workspace):
    found = run_choices(workspace)
    assert found.stages == ("align@audio", "ingest", "tune")
    assert found.users == ("ada", "bob")


def test_without_an_index_no_folder_is_opened_unasked(tmp_path):
    layout = layout_of(tmp_path)
    run = write_run(layout, "tune")
    assert run_page(layout, RunFilter()).total == 0
    assert questions.unsettled(layout) == questions.Unsettled((run,), 1)
    assert not layout.registry.exists()


def test_a_run_whose_folder_is_gone_is_still_in_the_index(tmp_path):
    layout = layout_of(tmp_path)
    run = write_run(layout, "tune", steps=3, artifacts={"artifacts/model": "m" * 64})
    index(layout)
    assert questions.has_all_metrics(layout, run)
    shutil.rmtree(layout.runs / run)
    assert questions.unsettled(layout).runs == ()
    assert questions.run_row(layout, run)["artifacts"] == {"artifacts/model": "m" * 64}
    assert questions.run_row(layout, "nobody") is None
    assert run_page(layout, RunFilter()).lines[0].id == run


def test_the_last_loss_is_read_from_the_end_of_a_long_file(tmp_path):
    layout = layout_of(tmp_path)
    run = now_running(layout, steps=2000)
    metric(layout, run, 2001, loss=0.125)
    with (layout.runs / run / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 2002, "loss": 9')
    assert run_lines.last_loss(layout, run) == 0.125


@pytest.mark.parametrize("descending", [True, False])
def test_runs_whose_last_loss_is_not_finite_stand_behind_those_with_one(tmp_path, descending):
    layout = layout_of(tmp_path)
    told = (0.3, float("nan"), 0.1, float("inf"), 0.2)
    for day, loss in enumerate(told):
        run = write_run(layout, "tune", began=BEGAN + timedelta(days=day))
        metric(layout, run, 1, loss=loss)
    order = RunOrder("loss", descending=descending)
    lines = run_page(layout, RunFilter(), fresh_lines(layout), order).lines
    assert [line.loss for line in lines[:3]] == sorted((0.1, 0.2, 0.3), reverse=descending)
    index(layout)
    assert [line.id for line in run_page(layout, RunFilter(), (), order).lines] == [
        line.id for line in lines
    ]


BROKEN = {"status": "done", "stage": "tune", "started": BEGAN.isoformat()}


@pytest.mark.parametrize(
    "record",
    [
        *("[]", "{}", '{"status": "done"}', "{"),
        json.dumps(BROKEN | {"started": "never"}),
        json.dumps(BROKEN | {"started": "2026-03-01T00:00:00"}),
        json.dumps(BROKEN | {"started": 7, "status": "running"}),
        json.dumps(BROKEN | {"started": "2026-03-01", "status": "running"}),
    ],
)
def test_a_record_that_was_changed_by_hand_is_told_and_not_guessed(tmp_path, record):
    layout = layout_of(tmp_path)
    run = write_run(layout, "tune")
    (layout.runs / run / "run.json").write_text(record)
    with pytest.raises(LineageError):
        run_lines.line_of(layout, run)


def test_moments_are_told_as_a_time_ago_a_day_or_a_moment():
    now = datetime(2026, 3, 31, 12, tzinfo=UTC)
    assert since_of("24h", now) == "2026-03-30T12:00:00+00:00"
    assert since_of(" 7 d ", now) == "2026-03-24T12:00:00+00:00"
    assert since_of("2026-03-31") == "2026-03-31T00:00:00+00:00"
    assert until_of("2026-03-31") == "2026-03-31T23:59:59.999999+00:00"
    assert since_of("2026-03-31T12:00+02:00") == "2026-03-31T10:00:00+00:00"
    assert since_of("24h", now.replace(second=59, microsecond=7)) == since_of("24h", now)


@pytest.mark.parametrize("told", ["yesterday", "24", "999999w", "2026-03-31T12:00", "'; DROP"])
def test_what_is_no_moment_is_told_with_what_to_write(told):
    with pytest.raises(ConfigError):
        since_of(told)


def test_texts_are_ordered_by_code_points_whatever_a_database_collates_by():
    order = [str(one.compile(dialect=postgresql.dialect())) for one in questions._way(NEWEST)]
    assert order == ['(runs.started COLLATE "C") DESC', '(runs.id COLLATE "C") DESC']
    by_loss = questions._way(RunOrder("loss", descending=False))
    assert [str(one.compile(dialect=postgresql.dialect())) for one in by_loss] == [
        "series.last IS NULL",
        "series.last ASC",
        '(runs.id COLLATE "C") ASC',
    ]
    assert [str(one.compile(dialect=sqlite.dialect())) for one in questions._way(NEWEST)] == [
        "runs.started DESC",
        "runs.id DESC",
    ]


def made(layout, name, params):
    with write_artifact(layout.root / name, stage="it", kind="x", params=params, parents={}) as it:
        (it.folder / "x").write_text(name)
    return read_card(layout.root / name).id


def test_parameters_that_cards_tell_differently_stand_under_each_name(tmp_path):
    layout = Layout(tmp_path)
    told = ({"seed": 7, "steps": 3}, {"seed": 7, "steps": 4, "own": None})
    names = {
        f"artifacts/{n}": made(layout, f"artifacts/{n}", params) for n, params in enumerate(told)
    }
    index(layout)
    assert questions.params_of(layout, names) == {
        "own": None,
        "seed": 7,
        "steps": {"artifacts/0": 3, "artifacts/1": 4},
    }
    assert questions.params_of(layout, {"artifacts/9": "0" * 64}) == {}
