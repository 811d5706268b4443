"""What a training is watched by: telemetry on every rank, and on the first its ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from uni_moe import config
from uni_moe.runs import Run
from uni_moe.train.alarms import suspects
from uni_moe.train.batches import StepReport
from uni_moe.train.guard import Decision, decide, stopped
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

    def begin(self) -> None:
        """Begin a training at its first step."""
        if self._ledger is not None:
            self._ledger.begin()

    def resume(self, kept: Mapping[str, Any]) -> None:
        """Go on, or back, to where `keep` was called.

        Raises:
            StageError: the ledger is not the one that was kept.
        """
        self._telemetry.load(kept["telemetry"])
        if self._ledger is not None:
            self._ledger.resume(kept["ledger"])

    def keep(self) -> dict[str, Any]:
        """Return what a training state keeps of this."""
        ledger = None if self._ledger is None else self._ledger.position()
        return {"telemetry": self._telemetry.to_json(), "ledger": ledger}

    def see(self, report: StepReport, run: Run, skipped: Sequence[int]) -> Decision:
        """Tell a step and record its draws, unless it is to be left out; return what follows.

        Raises:
            StageError: the training stops here. It names the step's draws, the worst first.
        """
        told = self._telemetry.add(report)
        write(run, report.step, told)
        decision = decide(told.alarms, self._guard, skipped)
        if decision.action == "stop":
            raise stopped(decision, suspects(report))
        if decision.action == "go_on" and self._ledger is not None:
            self._ledger.add(report)
        return decision
