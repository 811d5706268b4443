"""What a training is watched by: telemetry on every rank, and on the first its ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from uni_moe import config
from uni_moe.runs import Run
from uni_moe.train.alarms import AlarmKind, suspects
from uni_moe.train.batches import StepReport
from uni_moe.train.guard import GUARDED, Decision, decide, left_out, stopped
from uni_moe.train.ledger import Ledger
from uni_moe.train.telemetry import Telemetry, write

# A training that params say nothing of stops at what is no number, and nothing else alarms it.
PLAIN = config.Telemetry(
    config.Guard("stop", "tell", most_skips=0, window_steps=2, spike_deviations=math.inf),
    config.RouterAlarms(1, collapse_share=math.inf, least_entropy=0.0, dead_share=0.0),
)


class Watch:
    """Sees every step of one training, in their order, and says what follows."""

    def __init__(
        self,
        rules: config.Telemetry = PLAIN,
        *,
        telemetry: Telemetry | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._guard = rules.guard
        self._telemetry = telemetry or Telemetry(rules)
        self._ledger = ledger
        self._alarms: dict[int, tuple[AlarmKind, ...]] = {}  # what the guard was asked about
        self._skips: dict[int, tuple[AlarmKind, ...]] = {}  # of them, since this process began

    def begin(self) -> None:
        """Begin a training at its first step."""
        self._alarms = {}
        if self._ledger is not None:
            self._ledger.begin()

    def would_have(self, kept: Mapping[str, Any], skipped: Sequence[int]) -> bool:
        """Say whether the guard of today would have left out the same steps until `keep`.

        Args:
            kept: what `keep` returned.
            skipped: the steps that were left out.
        """
        return left_out(_by_step(kept["alarms"]), self._guard) == list(skipped)

    def resume(self, kept: Mapping[str, Any]) -> None:
        """Go on, or back, to where `keep` was called.

        Raises:
            StageError: the ledger is not the one that was kept.
        """
        self._telemetry.load(kept["telemetry"])
        self._alarms = _by_step(kept["alarms"]) | self._skips
        if self._ledger is not None:
            self._ledger.resume(kept["ledger"])

    def keep(self) -> dict[str, Any]:
        """Return what a training state keeps of this."""
        ledger = None if self._ledger is None else self._ledger.position()
        alarms = sorted(self._alarms.items())
        return {"telemetry": self._telemetry.to_json(), "ledger": ledger, "alarms": alarms}

    def see(self, report: StepReport, run: Run, skipped: Sequence[int]) -> Decision:
        """Tell a step and record its draws, unless it is to be left out; return what follows.

        Raises:
            StageError: the training stops here. It names the step's draws, the worst first.
        """
        told = self._telemetry.add(report)
        write(run, report.step, told)
        decision = decide(told.alarms, self._guard, skipped)
        if kinds := tuple(alarm.kind for alarm in told.alarms if alarm.kind in GUARDED):
            self._alarms[report.step] = kinds
            if decision.action == "skip":
                self._skips[report.step] = kinds
        if decision.action == "stop":
            raise stopped(decision, suspects(report))
        if decision.action == "go_on" and self._ledger is not None:
            self._ledger.add(report)
        return decision


def _by_step(kept: Sequence[Sequence[Any]]) -> dict[int, tuple[AlarmKind, ...]]:
    return {step: tuple(kinds) for step, kinds in kept}
