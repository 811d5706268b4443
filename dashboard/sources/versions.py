"""One registered model: its verdicts with their evidence, its passport, how it can be verified."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.sources import audit
from dashboard.sources.workspace import remembered, stamp, state, workspace
from uni_moe.artifacts import Layout
from uni_moe.audit import Entry
from uni_moe.registry import read
from uni_moe.registry.cards import CARDS, kept_family
from uni_moe.registry.live import Live, live
from uni_moe.registry.removals import removals
from uni_moe.verify.family import STATES
from uni_moe.verify.verdict import GRADES as GRADES  # shown beside the commands

NOT_JUDGED = "not judged by the gate"
VERIFICATION = "verification"
_WORDS = {
    "rollback": "rolled back to",
    "waiver": "promoted against the gate",
    "promotion": "promoted",
}


@dataclass(frozen=True)
class Training:
    """A training that a model came from, and how many of its training states are kept here."""

    stage: str
    name: str
    steps: int | None
    kept: int


def decisions_about(model: str) -> list[read.Decision]:
    """Return the gate's decisions about a model, oldest first."""
    return [one for one in _decisions() if one.verdict.candidate == model]


def last_decision() -> read.Decision | None:
    """Return the last decision of the gate."""
    return next(iter(reversed(_decisions())), None)


def last_refused() -> str | None:
    """Return the model that the gate refused last."""
    refused = (one for one in reversed(_decisions()) if verdict_word(one) == "refused")
    return next((one.verdict.candidate for one in refused), None)


@remembered
def live_at(layout: Layout, at: str) -> Live:
    """Return who was the champion on a day, or at a moment."""
    return live(layout, at)


def removed() -> dict[str, str]:
    """Return model -> by whom and when its weights went."""
    return removals(audit.every())


def verdict_word(one: read.Decision) -> str:
    """Say in a word or two what a decision did."""
    return _word(one, audit.deciders().get(one.run))


def _word(one: read.Decision, entry: Entry | None) -> str:
    if entry is not None and entry.event in _WORDS:
        return _WORDS[entry.event]
    if one.verdict.evidence.get("rollback"):
        return _WORDS["rollback"]
    if one.verdict.promoted:
        return _WORDS["promotion"]
    return "waits for approvals" if one.verdict.evidence.get("waits") else "refused"


def judgement(version: read.Version) -> str:
    """Say what the last decision about a version did, or that there was none."""
    return _words().get(version.model, NOT_JUDGED)


def standing(version: read.Version) -> str:
    """Say what a version is today: the champion, or what the last decision about it did."""
    return standings([version])[0]


def standings(known: Sequence[read.Version]) -> list[str]:
    """Say the same of many versions; what is remembered is copied once for all of them."""
    words = _words()
    return [
        "the champion" if one.is_champion else words.get(one.model, NOT_JUDGED) for one in known
    ]


def _words() -> dict[str, str]:
    deciders = audit.deciders()
    return {one.verdict.candidate: _word(one, deciders.get(one.run)) for one in _decisions()}


def differences(one: read.Decision) -> list[dict[str, Any]]:
    """Return modality by modality what the gate compared, in points; absent numbers are None."""
    told = one.verdict.evidence.get("modalities")
    return [_row(str(n), f) for n, f in _dict(told).items() if isinstance(f, dict)]


def margin(one: read.Decision) -> float | None:
    """Return how many points the gate lets a modality lose."""
    return _points(_dict(one.verdict.evidence.get("rules")).get("margin"))


def verifications(model: str) -> list[Entry]:
    """Return what verifications of a model found, newest first, as the audit log tells it."""
    return [one for one in reversed(audit.about(model)) if one.event == VERIFICATION]


def trainings(version: read.Version) -> list[Training]:
    """Return the trainings that a version came from, with the states that are kept of each stage.

    Raises:
        LineageError: its kept cards are not whole.
    """
    told = _trainings(version, stamp(version.folder))
    kept = {stage: _kept(workspace(), stage) for stage, _, _ in told}  # they come and go unseen
    return [Training(stage, name, steps, kept[stage]) for stage, name, steps in told]


@remembered
def _trainings(
    layout: Layout, version: read.Version, here: tuple[int, int] | None
) -> list[tuple[str, str, int | None]]:
    del layout, here  # the folder's stamp is part of the key alone
    return [
        (card.stage, name, _count(card.results.get("steps")))
        for name, card in kept_family(version.folder / CARDS, version.model)
        if STATES in card.files
    ]


def passport(number: int) -> str:
    """Return the passport of a version as a page; every byte that is kept of it is read.

    Raises:
        LineageError: what is kept of it was changed or is gone, or the audit log is broken.
    """
    from uni_moe.passport import passport as made

    return made(workspace(), str(number))


def _decisions() -> tuple[read.Decision, ...]:
    layout = workspace()
    return _verdicts(str(layout.root), state(layout))


@st.cache_resource(max_entries=2, show_spinner=False)
def _verdicts(root: str, now: tuple[object, ...]) -> tuple[read.Decision, ...]:
    """Read the verdicts once for each state of the workspace; frozen, they are shared."""
    del now
    return tuple(read.verdicts(Layout(Path(root))))


def _row(name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    paired = _dict(told.get("paired"))
    return {
        "name": name,
        "candidate": _points(told.get("candidate")),
        "champion": _points(told.get("champion")),
        "guessing": _points(told.get("guessing")),
        "difference": _points(paired.get("difference")),
        "low": _points(paired.get("low")),
        "high": _points(paired.get("high")),
        "surely": _points(paired.get("surely")),
        "detectable": _points(paired.get("detectable")),
        "items": _count(told.get("n")),
        "better": _count(paired.get("better")),
        "worse": _count(paired.get("worse")),
    }


def _kept(layout: Layout, stage: str) -> int:
    """Count the states that lie here of trainings of a stage."""
    try:
        folders = [one for one in os.scandir(layout.state) if one.name.rpartition("-")[0] == stage]
        return sum(
            step.name.startswith("step-") for folder in folders for step in os.scandir(folder)
        )
    except OSError:
        return 0


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _points(share: object) -> float | None:
    if isinstance(share, bool) or not isinstance(share, int | float) or not math.isfinite(share):
        return None
    return round(100 * share, 3)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
