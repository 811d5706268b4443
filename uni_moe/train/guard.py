"""What to do when a step went wrong: a pure decision, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from uni_moe.config import Guard
from uni_moe.errors import StageError, bullets
from uni_moe.train.alarms import Alarm, AlarmKind, Suspect

# What rules decide about; alarms of routing are told alone.
GUARDED: tuple[AlarmKind, ...] = ("loss_spike", "gradient_spike", "not_finite")
_NAMED = 5  # draws in an error's text


@dataclass(frozen=True)
class Decision:
    """`go_on`, `stop`, or `skip`: back to the last training state, and this step left out.

    `alarm` is the one that decided, `alarms` are all of the step.
    """

    action: Literal["go_on", "stop", "skip"]
    alarm: Alarm | None = None
    exhausted: bool = False  # it would skip, but has skipped as often as it may
    alarms: tuple[Alarm, ...] = ()


def decide(alarms: Sequence[Alarm], rules: Guard, skipped: Collection[int]) -> Decision:
    """Return what to do after a step. Every rank decides the same from the loss and the norm.

    Args:
        alarms: those of the step; alarms of routing decide nothing.
        rules: what the params say.
        skipped: the steps that were left out so far.
    """
    wishes: dict[str, str] = dict.fromkeys(("loss_spike", "gradient_spike"), rules.on_spike)
    wishes["not_finite"] = rules.on_not_finite
    asked = [(wishes[alarm.kind], alarm) for alarm in alarms if alarm.kind in wishes]
    told = tuple(alarms)
    for wish, alarm in asked:
        if wish == "stop":
            return Decision("stop", alarm, alarms=told)
    for wish, alarm in asked:
        if wish == "skip":
            exhausted = len(skipped) >= rules.most_skips
            return Decision("stop" if exhausted else "skip", alarm, exhausted, told)
    return Decision("go_on", alarms=told)


def left_out(alarms: Mapping[int, Sequence[AlarmKind]], rules: Guard) -> list[int] | None:
    """Return the steps that rules leave out of a training that alarmed so; None: it stops.

    Args:
        alarms: step -> what alarmed at it, as often as it was tried.
        rules: what the params say.
    """
    found: list[int] = []
    for step in sorted(alarms):
        told = [Alarm(kind, step, "", math.nan) for kind in alarms[step]]
        action = decide(told, rules, found).action
        if action == "stop":
            return None
        found += [step] * (action == "skip")
    return found


def stopped(decision: Decision, draws: Sequence[Suspect] = ()) -> StageError:
    """Return the error of a phase that stops; `draws` are the step's, the worst first."""
    alarm = decision.alarm
    assert alarm is not None
    spent = ""
    if decision.exhausted:
        spent = " Steps were left out as often as `telemetry.guard.most_skips` allows."
    return StageError(
        f"{alarm.text[:1].upper()}{alarm.text[1:]}.{spent}{bullets(named(draws), most=_NAMED)}",
        cause=_cause(draws),
        remedy="look at these samples (`uni-moe ledger show KEY` tells where else they were seen), "
        "then let `telemetry.guard` in params.yaml skip such steps and run again: it goes on from "
        "the last state; with a lower `learning_rate` of this phase it begins anew.",
    )


def named(draws: Sequence[Suspect]) -> list[str]:
    """Return draws in words, in their order."""
    return [
        f"{one.key} ({one.modality}, {one.source}, slot {one.slot}, rank {one.rank}): "
        + ("no token bears loss" if one.loss is None else f"{one.loss:.4g} nats a token")
        for one in draws
    ]


def _cause(draws: Sequence[Suspect]) -> str:
    """Say what the draws' own losses tell: one that is no number is guilty, all of them are not."""
    learned = [one for one in draws if one.loss is not None]
    broken = [one for one in learned if not math.isfinite(one.loss or 0.0)]
    if broken and len(broken) < len(learned):
        count = f"{len(broken)} of its {len(learned)} draws"
        return f"{count}, named first, have a loss that is no number: their media or their text."
    if broken:
        return "no draw of the step has a loss: the weights were broken before, or all its media."
    return "a learning rate that is too high, or media that decode to nonsense."
