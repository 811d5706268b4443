"""The decision after a step, as a table of cases, and its words."""

import math

import pytest

from tests.unit.train.reports import report, seen
from uni_moe.config import Guard
from uni_moe.train.alarms import Alarm, suspects
from uni_moe.train.guard import decide, left_out, stopped

NAN = Alarm("not_finite", 7, "the loss of step 7 is nan", math.nan)
LEAP = Alarm("loss_spike", 7, "the loss of step 7 is 9", 12.0, 8.0)
STEEP = Alarm("gradient_spike", 7, "the gradient of step 7 is 90", 12.0, 8.0)
COLLAPSE = Alarm("collapse", 7, "layer 0 has collapsed", 1.0, 0.98, 0)


@pytest.mark.parametrize(
    ("alarms", "on_not_finite", "on_spike", "skipped", "action"),
    [
        ([], "stop", "stop", [], "go_on"),
        ([COLLAPSE], "stop", "stop", [], "go_on"),
        ([NAN], "stop", "tell", [], "stop"),
        ([NAN], "skip", "tell", [], "skip"),
        ([NAN], "skip", "tell", [2], "skip"),
        ([NAN], "skip", "tell", [2, 4], "stop"),
        ([LEAP], "stop", "tell", [], "go_on"),
        ([LEAP], "stop", "skip", [], "skip"),
        ([STEEP], "skip", "stop", [], "stop"),
        ([COLLAPSE, LEAP, STEEP], "stop", "skip", [], "skip"),
        ([LEAP, NAN], "stop", "skip", [], "stop"),
    ],
)
def test_what_follows_a_step(alarms, on_not_finite, on_spike, skipped, action):
    rules = Guard(on_not_finite, on_spike, most_skips=2, window_steps=16, spike_deviations=8.0)
    found = decide(alarms, rules, skipped)
    assert found.action == action
    assert found.alarms == tuple(alarms)
    assert found.exhausted == (len(skipped) == 2)


@pytest.mark.parametrize(
    ("on_not_finite", "on_spike", "steps"),
    [
        ("stop", "tell", None),
        ("skip", "tell", [9]),
        ("skip", "skip", None),  # 4, 7, then once more than it may
        ("skip", "stop", None),
    ],
)
def test_rules_are_held_to_the_alarms_that_there_were(on_not_finite, on_spike, steps):
    rules = Guard(on_not_finite, on_spike, most_skips=2, window_steps=16, spike_deviations=8.0)
    told = {9: ["not_finite"], 4: ["loss_spike", "gradient_spike"], 7: ["gradient_spike"]}
    assert left_out(told, rules) == steps
    assert left_out({}, rules) == []


def error(losses, skipped=()):
    rules = Guard("skip", "tell", most_skips=len(skipped), window_steps=16, spike_deviations=8.0)
    draws = [seen(slot, f"film {slot}", modality="video") for slot in range(len(losses))]
    decision = decide([NAN], rules, skipped)
    return stopped(decision, suspects(report(7, draws, losses=losses)))


def test_a_draw_without_a_number_is_named_as_guilty():
    told = error([4.0, 8.0, math.nan, 2.0])
    assert told.what.startswith("The loss of step 7 is nan.")
    assert "cats/film 2 (video, cats, slot 2, rank 0): nan nats a token" in told.what
    assert told.what.index("film 2") < told.what.index("film 1") < told.what.index("film 0")
    assert told.cause.startswith("1 of its 4 draws")
    assert "most_skips" in told.what


def test_no_draw_is_blamed_where_all_are_broken():
    assert "the weights were broken before" in error([math.nan, math.nan]).cause


def test_draws_are_not_blamed_for_a_gradient():
    assert error([4.0, 8.0]).cause.startswith("a learning rate")


def test_a_long_step_names_its_worst_draws_and_counts_the_rest():
    told = error([float(slot) for slot in range(30)])
    assert told.what.count("nats a token") == 5
    assert "… and 25 more" in told.what
