"""What an alarm needs, on made-up streams of steps."""

import json
import math
import random
from dataclasses import replace

import pytest

from tests.unit.train.reports import report, routed, seen
from uni_moe.config import Guard, RouterAlarms
from uni_moe.train.alarms import Leaps, RouterWatch, deviations, facts_of, suspects

GUARD = Guard("stop", "stop", most_skips=1, window_steps=32, spike_deviations=8.0)
ROUTER = RouterAlarms(5, collapse_share=0.95, least_entropy=0.05, dead_share=0.05)


def healthy(step, dice):
    """Return a loss that falls from 6 to 0.05 with noise in it, and a gradient's norm."""
    loss = 6.0 * math.exp(-step / 60) + 0.05
    return loss * math.exp(dice.gauss(0, 0.15)), math.exp(dice.gauss(0, 0.4))


def kinds(found):
    return [alarm.kind for alarm in found]


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_training_alarms_nobody(seed):
    leaps, dice = Leaps(GUARD), random.Random(seed)
    assert not [a for step in range(1, 400) for a in leaps.see(step, *healthy(step, dice))]


@pytest.mark.parametrize(
    ("loss", "norm", "found"),
    [
        (60.0, 1.0, ["loss_spike"]),
        (0.1, 300.0, ["gradient_spike"]),
        (60.0, 300.0, ["loss_spike", "gradient_spike"]),
        (0.0, 0.0, []),  # only what leaps up
        (0.2, 1.0, []),  # hundredths of a nat are no matter
        (math.nan, 1.0, ["not_finite"]),
        (0.1, math.inf, ["not_finite"]),
        (math.nan, math.nan, ["not_finite"]),
    ],
)
def test_a_planted_leap_is_found_at_its_step(loss, norm, found):
    leaps, dice = Leaps(GUARD), random.Random(1)
    for step in range(1, 300):
        assert leaps.see(step, *healthy(step, dice)) == []
    assert kinds(leaps.see(300, loss, norm)) == found
    assert leaps.see(301, *healthy(301, dice)) == []


def test_a_lasting_leap_goes_off_once_and_becomes_the_usual():
    leaps = Leaps(GUARD)
    losses = [1.0] * 20 + [50.0] * 20 + [2000.0]
    found = [leaps.see(step, loss, 1.0) for step, loss in enumerate(losses, 1)]
    assert [step for step, alarms in enumerate(found, 1) if alarms] == [21, 41]


def test_nothing_leaps_before_there_is_something_usual():
    leaps = Leaps(GUARD)
    assert leaps.see(1, 5.0, 1.0) == []
    assert leaps.see(2, 5e6, 1.0) == []


def test_leaps_go_on_from_what_was_kept():
    dice = random.Random(2)
    steps = [(step, *healthy(step, dice)) for step in range(1, 60)] + [(60, 90.0, 1.0)]
    whole, first, second = Leaps(GUARD), Leaps(GUARD), Leaps(GUARD)
    expected = [whole.see(*step) for step in steps]
    found = [first.see(*step) for step in steps[:35]]
    second.load(json.loads(json.dumps(first.to_json())))
    found += [second.see(*step) for step in steps[35:]]
    assert found == expected
    assert second.to_json() == whole.to_json()
    assert kinds(found[-1]) == ["loss_spike"]


def test_deviations_by_hand():
    assert deviations(8.0, [1.0, 2.0, 3.0, 5.0, 100.0]) == pytest.approx(5 / (2 * 1.4826))
    assert deviations(3.5, [3.0, 3.0, 3.0]) == pytest.approx(0.5 / 0.1)


def test_a_layers_facts_by_hand():
    facts = facts_of(routed([60, 20, 10, 10], entropy=math.log(4) / 2))
    assert facts.top_k == 2
    assert facts.load == (0.6, 0.2, 0.1, 0.1)
    assert facts.busiest_share == pytest.approx(0.8)
    assert facts.entropy_share == pytest.approx(0.5)
    assert facts.dead(0.5) == [2, 3]
    assert facts_of(routed([0, 0, 0, 0])) is None


def signs(layers, steps=12):
    """Return (step, kind, layer, expert) of every alarm when each step looks so."""
    watch = RouterWatch(ROUTER)
    return [
        (step, alarm.kind, alarm.layer, alarm.expert)
        for step in range(1, steps + 1)
        for alarm in watch.see(step, layers)
    ]


EVEN = routed([25, 25, 25, 25])


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ({0: EVEN}, []),
        ({0: EVEN, 3: routed([50, 46, 2, 2], entropy=0.9)}, [(5, "collapse", 3, None)]),
        ({0: routed([50, 30, 19, 1])}, [(5, "dead_expert", 0, 3)]),
        (
            {2: routed([50, 50, 0, 0], entropy=0.01)},
            [
                (5, "collapse", 2, None),
                (5, "low_entropy", 2, None),
                (5, "dead_expert", 2, 2),
                (5, "dead_expert", 2, 3),
            ],
        ),
        ({0: routed([40, 40, 20, 20], entropy=0.02)}, [(5, "low_entropy", 0, None)]),
        ({0: routed([50, 50], entropy=0.0)}, []),  # tokens visit all there are
        ({}, []),
    ],
)
def test_an_alarm_of_routing_goes_off_once_when_it_lasts(layers, found):
    assert signs(layers) == found


def test_an_alarm_of_routing_that_is_broken_off_waits_again():
    watch = RouterWatch(ROUTER)
    bad = {0: routed([50, 50, 0.4, 0.4])}
    looks = [bad] * 4 + [{0: EVEN}] + [bad] * 5 + [{0: EVEN}] + [bad] * 5
    found = [len(watch.see(step, look)) for step, look in enumerate(looks, 1)]
    assert [step for step, count in enumerate(found, 1) if count] == [10, 16]


def test_a_watch_of_routers_goes_on_from_what_was_kept():
    bad = {0: routed([50, 50, 0.4, 0.4])}
    first, second = RouterWatch(ROUTER), RouterWatch(ROUTER)
    assert [first.see(step, bad) for step in range(1, 4)] == [[], [], []]
    second.load(json.loads(json.dumps(first.to_json())))
    assert second.see(4, bad) == []
    assert second.see(5, bad)


def test_the_worst_draws_of_a_step_come_first():
    draws = [seen(slot, str(slot), tokens=slot % 5) for slot in range(7)]
    found = suspects(report(1, draws, losses=[0.0, 1.0, math.nan, 9.0, 4.0, 0.0, 2.0]))
    assert [(one.slot, one.loss) for one in found if one.slot != 2] == [
        (3, 3.0),
        (6, 2.0),
        (1, 1.0),
        (4, 1.0),
        (0, None),
        (5, None),
    ]
    assert found[0].slot == 2


def test_an_alarm_is_json_whatever_its_numbers():
    alarm = Leaps(GUARD).see(3, math.nan, math.inf)[0]
    draws = suspects(report(3, [seen(0, "a"), seen(1, "b")], losses=[math.nan, math.inf]))
    told = json.loads(json.dumps(replace(alarm, draws=draws).to_json(), allow_nan=False))
    assert (told["kind"], told["step"], told["value"]) == ("not_finite", 3, "nan")
    assert [draw["loss"] for draw in told["draws"]] == ["nan", "inf"]
    assert "layer" not in told
