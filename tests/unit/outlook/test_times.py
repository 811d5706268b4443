import json
from dataclasses import replace

import pytest

from tests.unit.outlook.small import training
from uni_moe.artifacts import Layout, write_json
from uni_moe.outlook.text import duration
from uni_moe.outlook.times import LastRun, Rate, estimate, last_runs

RATE = Rate(1e9, "a test")


LAST = LastRun("a", 30.0, (2.0,) * 5, 50.0, ranks=1)


def write_run(layout, name, started, status="done", steps=(), ranks=1):
    folder = layout.runs / name
    record = {"id": name, "stage": "tune", "status": status, "started": started}
    write_json(folder / "run.json", record | {"duration_s": 30.0, "artifacts": {}})
    rows = [{"step_s": 2.0, "positions_per_s": 25.0} for _ in steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    events = [{"event": "platform"}, {"event": "training", "step": 0, "ranks": ranks}]
    (folder / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in events))


def test_the_last_run_that_ended_well_is_taken(tmp_path):
    layout = Layout(tmp_path)
    write_run(layout, "a", "2026-01-01T00:00:00+00:00", steps=range(3))
    write_run(layout, "b", "2026-01-02T00:00:00+00:00", steps=range(5), ranks=2)
    write_run(layout, "c", "2026-01-03T00:00:00+00:00", status="failed")
    assert last_runs(layout) == {"tune": LastRun("b", 30.0, (2.0,) * 5, 50.0, ranks=2)}


def test_a_run_that_went_on_from_its_last_step_says_nothing(tmp_path):
    layout = Layout(tmp_path)
    write_run(layout, "b", "2026-01-02T00:00:00+00:00")
    assert last_runs(layout) == {}
    write_run(layout, "a", "2026-01-01T00:00:00+00:00", steps=range(3))
    assert last_runs(layout)["tune"].id == "a"


def test_more_steps_of_more_positions_take_longer_and_what_is_around_them_does_not():
    found = estimate(training(), LAST, RATE)
    assert found.seconds == pytest.approx(20.0 + 10 * 2.0 * 2)
    assert found.rests_on == "5 steps of its last run a"


def test_assumed_lengths_scale_nothing():
    assert estimate(training(measured=False), LAST, RATE).seconds == pytest.approx(40.0)


@pytest.mark.parametrize(
    ("ranks", "said"), [(2, "on 2 rank(s)"), (None, "on an unknown number of rank(s)")]
)
def test_steps_of_other_ranks_are_not_scaled_and_it_is_said(ranks, said):
    found = estimate(training(world=4), replace(LAST, ranks=ranks), RATE)
    assert found.seconds == pytest.approx(40.0)
    assert found.rests_on.endswith(f"as long as they took {said}, now there are 4")


def test_a_run_without_steps_leaves_a_training_to_its_operations():
    bare = LastRun("a", 3.0, (), None, ranks=None)
    assert estimate(training(), bare, RATE) == estimate(training(), None, RATE)


def test_a_stage_that_trains_nothing_takes_what_it_took():
    assert estimate(None, LastRun("a", 7.0, (), None, None), RATE).seconds == 7.0


def test_without_a_run_operations_and_a_named_rate_say_it():
    found = estimate(training(), None, RATE)
    assert found.seconds == pytest.approx(10 * (100 * 1e6 + 10 * 2e6) / 1e9)
    assert found.rests_on.startswith("a test")
    assert estimate(training(world=4), None, RATE).seconds == pytest.approx(found.seconds / 4)


def test_of_what_never_ran_and_trains_nothing_nothing_is_known():
    assert estimate(None, None, RATE).seconds is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(7.2, "7 s"), (150, "2.5 min"), (7200, "2.0 h"), (864_000, "10.0 days")],
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert duration(seconds) == said
