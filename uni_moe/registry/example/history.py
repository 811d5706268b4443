"""What ran, who started it and why, how it ended, and what the gate decided. Pure but for a clock.

Retrainings follow each other; each of their stages is a run, some of which fail or die and are
started again. What a seed gives does not depend on the clock, but for the times themselves: the
last run ends when the caller says.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import numpy as np

from uni_moe.artifacts import json_text
from uni_moe.config import Gate
from uni_moe.records import MODALITIES, Card, sha256_text
from uni_moe.registry.example.contracts import CONTRACT, RULES, VERSION, contract_report
from uni_moe.registry.example.exams import Sitting, first_skill, sit, texts
from uni_moe.registry.example.road import Made, Road
from uni_moe.registry.gate import Verdict, decide
from uni_moe.registry.seen import CONTRACT as CONTRACT_REPORT

FAILED, DIED = 0.055, 0.013  # shares of stages; of all runs about 4 and 1 in a hundred
_PACE = 150.0  # models get better by this over the count of runs, so that they never end early
ROLLED_BACK = 0.2  # share of champions
USERS = ("ada", "grace", "alan", "katherine", "scheduler")
HOSTS = ("forge-1", "forge-2", "forge-3")
WHY = {
    "text": ("new questions came in", "the nightly schedule"),
    "image": ("a new image source", "captions were corrected", "the nightly schedule"),
    "video": ("longer films are allowed now", "the nightly schedule"),
    "audio": ("sounds of birds were added", "worse on audio since last week"),
    "speech": ("speakers withdrew their consent", "more speakers", "the nightly schedule"),
}
ALL = ("a larger language model", "the contract has a new version", "a new release")
ERRORS = (
    "StageError: the loss of step {step} is nan; the guard stops the training",
    "StageError: the disk is full",
    "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    "ContractError: 3 sets break the contract manifest, version 2",
    "KeyboardInterrupt: ",
)
LASTS_S = {"ingest": 240, "validate": 60, "prepare": 45, "assemble": 20, "evaluate": 300}
LATE = 40  # runs that people look at first
GAP_S = 4 * 3600.0  # between retrainings, in the middle
_VERDICT = "validated/report"
NOTE = "An example: nothing was trained, so there are no weights here.\n"
NOTE_FILE = "example.txt"


@dataclass
class Told:
    """A run. `begin_s` counts from the first; `number` is its place, and what its dice begin at."""

    number: int
    stage: str
    begin_s: float
    duration_s: float
    user: str
    host: str
    reason: str
    flow_run: str
    status: str = "done"
    error: str | None = None
    share: float = 1.0  # of its steps that it took before it ended
    id: str = ""
    started: str = ""
    artifacts: dict[str, str] = field(default_factory=dict)
    decision: Registered | Decided | None = None


@dataclass
class Registered:
    """A registration: a version, its artifacts and its exam."""

    version: int
    model: str
    report: str
    sequence: int
    sitting: Sitting


@dataclass
class Decided:
    """A verdict, with the reports that it rests on."""

    verdict: Verdict
    candidate_report: str
    champion_report: str | None
    sequence: int
    event: str  # of the audit log


@dataclass(frozen=True)
class _About:
    """Who started a retraining, why, and in which flow run."""

    user: str
    why: str
    flow_run: str


class History:
    """Makes runs until there are so many. `cards` holds what they made, by id."""

    def __init__(self, seed: int, runs: int, rules: Gate, telemetry: Mapping[str, Any]) -> None:
        self.runs: list[Told] = []
        self.cards: dict[str, tuple[str, Card]] = {}
        self.versions: list[Registered] = []
        self._most, self._rules, self._telemetry = runs, rules, telemetry
        self._dice, self._draw = random.Random(seed), np.random.default_rng(seed)
        self._road = Road(self._dice, self._identify)
        self._skill = first_skill(seed)
        self.reigns: list[Registered] = []  # that stand: of who was rolled back nothing is left
        self._clock_s, self._sequence, self._retrainings = 0.0, 0, 0
        self._owed = [FAILED, 0.0]  # among the late runs one dies and one fails, whatever falls
        while len(self.runs) < runs:
            self._retrain()
        del self.runs[runs:]

    def date(self, until: datetime) -> None:
        """Give every run its times and its id, so that the last ends at a moment."""
        last = max(run.begin_s + run.duration_s for run in self.runs)
        begin = until - timedelta(seconds=last)
        for run in self.runs:
            started = begin + timedelta(seconds=run.begin_s)
            run.started = started.isoformat()
            mark = sha256_text(f"{run.number} {run.stage}")[:6]
            run.id = f"{started:%Y%m%dT%H%M%S}-{run.stage.replace('@', '-')}-{mark}"

    def _retrain(self) -> None:
        """Run all stages of one retraining, then register and judge its model."""
        touched = self._road.choose()
        why = self._dice.choice(ALL if len(touched) > 1 else WHY[touched[0]])
        user = USERS[-1] if "schedule" in why else self._dice.choice(USERS[:-1])
        flow = sha256_text(f"flow {self._retrainings}")[:32]
        self._about = _About(user, why, flow)
        self._retrainings += 1
        self._clock_s += self._dice.expovariate(1.0) * GAP_S
        self._skill = self._skill.later(touched, min(0.3, _PACE / self._most), self._draw)
        made: list[Made] = []
        for _, group in groupby(self._road.retrain(touched), key=lambda one: one.stage):
            own = list(group)
            if own[0].stage == "validate":
                above = [f"samples/{name}" for name in MODALITIES]
                own.append(self._road.make(_VERDICT, "validate", CONTRACT_REPORT, above))
            self._execute(own)
            made += own
        self._register(made[-2].id, made[-1].id)

    def _execute(self, made: list[Made]) -> None:
        """Run a stage, again where it failed."""
        stage, chance = made[0].stage, self._dice.random()
        if self._owed and is_training(stage) and len(self.runs) >= self._most - LATE:
            chance = self._owed.pop()
        if chance < FAILED:
            step = self._dice.randrange(20, 400)
            said = self._dice.choice(ERRORS).format(step=step)
            self._run(stage, status="failed", error=said, share=self._dice.uniform(0.05, 0.9))
        elif chance < FAILED + DIED:
            self._run(stage, status="died", share=self._dice.uniform(0.05, 0.9))
        run = self._run(stage)
        run.artifacts = {one.name: one.id for one in made}

    def _run(self, stage: str, *, share: float = 1.0, **ended: Any) -> Told:  # noqa: ANN401 - fields
        usual = LASTS_S.get(stage.partition("@")[0], 5 if is_decision(stage) else 900)
        lasts_s = usual * self._dice.lognormvariate(0.0, 0.3) * share
        run = Told(
            number=len(self.runs),
            stage=stage,
            begin_s=self._clock_s,
            duration_s=round(lasts_s, 3),
            host=self._dice.choice(HOSTS),
            share=share,
            user=self._about.user,
            reason=self._about.why,
            flow_run=self._about.flow_run,
            **ended,
        )
        self._clock_s += lasts_s + self._dice.uniform(1.0, 20.0)
        self.runs.append(run)
        return run

    def _register(self, model: str, report: str) -> None:
        if len(self.runs) + 2 > self._most:
            return
        self._sequence += 1
        number = len(self.versions) + 1
        own = Registered(number, model, report, self._sequence, self._sat)
        self.versions.append(own)
        self._run("register").decision = own
        self._judge(own)
        if len(self.reigns) > 1 and self.reigns[-1] is own and self._dice.random() < ROLLED_BACK:
            self._roll_back(own)

    def _judge(self, own: Registered) -> None:
        champion = self.reigns[-1] if self.reigns else None
        exam = None if champion is None else champion.sitting.exam
        verdict = decide(own.sitting.exam, exam, self._rules)
        if verdict.promoted:
            self.reigns.append(own)
        event = "promotion" if verdict.promoted else "verdict"
        self._decide("gate", verdict, own, champion, event)

    def _roll_back(self, own: Registered) -> None:
        if len(self.runs) + 1 > self._most:
            return
        before = self.reigns[-2]
        said = f"back from version {own.version} by {self._about.user}: users complained"
        evidence = {"rules": asdict(self._rules), "rollback": True}
        verdict = Verdict(
            before.model, own.model, promoted=True, reasons=(said,), evidence=evidence
        )
        self.reigns.pop()
        self._decide("rollback", verdict, before, own, "rollback")

    def _decide(
        self,
        stage: str,
        verdict: Verdict,
        own: Registered,
        champion: Registered | None,
        event: str,
    ) -> None:
        self._sequence += 1
        before = None if champion is None else champion.report
        decided = Decided(verdict, own.report, before, self._sequence, event)
        self._run(stage).decision = decided

    def _identify(self, made: Made, number: int) -> str:
        files = {NOTE_FILE: sha256_text(NOTE)}
        if made.kind == "report":
            self._sat = sit(self._skill).of(dict(made.parents)["artifacts/model"])
            files = {name: sha256_text(text) for name, text in texts(self._sat).items()}
        if made.kind == CONTRACT_REPORT:
            files = {"report.json": sha256_text(verdict_text(number))}
        card = Card(
            stage=made.stage,
            kind=made.kind,
            params=_params(made, self._telemetry),
            parents=dict(made.parents),
            code=sha256_text(f"code of {made.stage}"),
            files=files,
            results=_results(made, number),
        )
        self.cards[card.id] = (made.name, card)
        return card.id


def verdict_text(number: int) -> str:
    """Return what the contract's report says, which is an artifact of this number."""
    return json_text(contract_report(number).to_json())


def is_decision(stage: str) -> bool:
    """Say whether a stage's run holds a decision: its folder is never removed."""
    return stage in ("register", "gate", "rollback")


def is_training(stage: str) -> bool:
    """Say whether a stage's runs take steps."""
    return stage.startswith(("foundation@", "align@", "experts@", "tune"))


def _params(made: Made, telemetry: Mapping[str, Any]) -> Mapping[str, Any]:
    if made.kind == "samples":
        return {"sources": [{"kind": "playground", "name": "playground", "seed": 20240518}]}
    if made.kind in ("validated", CONTRACT_REPORT):
        return {"contract": CONTRACT, "contract_sha256": RULES, "version": VERSION}
    own = {"telemetry": telemetry} if is_training(made.stage) else {}
    return own if made.modality is None else {**own, "modality": made.modality}


def _results(made: Made, number: int) -> Mapping[str, Any]:
    """Return facts as the stages write them; the number tells artifacts of one name apart."""
    dice = random.Random(number)
    listed = 1000 + number + dice.randrange(200)
    if made.kind == "samples":
        return {
            "listed": listed,
            "sources": {"playground": listed},
            "licenses": {"CC0-1.0": listed},
        }
    if made.kind == "validated":
        refused = dice.randrange(20)
        return {"listed": listed, "accepted": listed - refused, "quarantined": refused}
    if made.kind == CONTRACT_REPORT:
        return {"kept": True, "breaches": [], "made": number}
    return {"made": number}


def ended(run: Told) -> str | None:
    """Return when a run ended; None where it died."""
    if run.status == "died":
        return None
    moment = datetime.fromisoformat(run.started) + timedelta(seconds=run.duration_s)
    return moment.isoformat()
