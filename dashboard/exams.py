"""Two models on the same items: what is shown to differ, and which items say so. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from uni_moe.records import MODALITIES, Score
from uni_moe.registry.paired import Paired, compare

RIGHT = 1.0  # a full score
SHARES = ("score", "low", "high", "chance", "majority", "question_only", "swapped")
"""What of a score is a share of its items: first what is drawn, its interval and chance."""


@dataclass(frozen=True, slots=True)
class Item:
    """One judged item; `at` is the byte at which its line begins in the file of answers."""

    id: str
    key: str
    modality: str
    task: str
    group: str | None
    score: float
    at: int

    @property
    def is_right(self) -> bool:
        """Whether the answer has the full score."""
        return self.score == RIGHT

    def names(self) -> Iterator[str]:
        """Give what the item counts for: its modality, its task, and its group in the task."""
        yield self.modality
        yield from self.tasks()

    def tasks(self) -> Iterator[str]:
        """Give its task, and its group in the task."""
        if self.task:
            yield self.task
        if self.group:
            yield f"{self.task}:{self.group}"


Pair = tuple[Item, Item | None]
"""An item as the first model answered it, and as the other one did; None where nobody is asked."""


def pairs_of(first: Sequence[Item], other: Sequence[Item] | None) -> list[Pair]:
    """Return the items that both have, in their order; of one model alone, all of its own."""
    if other is None:
        return [(one, None) for one in first]
    known = {(one.id, one.key): one for one in other}
    return [(one, known[one.id, one.key]) for one in first if (one.id, one.key) in known]


@dataclass(frozen=True)
class Difference:
    """How a modality or a task differs."""

    name: str
    paired: Paired


def differences(
    pairs: Sequence[Pair], scope: Literal["modality", "task"], confidence: float, power: float
) -> list[Difference]:
    """Return how the first model differs by modality or by task, the worst first.

    Items whose score is no number are left out.
    """
    groups: dict[str, tuple[list[float], list[float]]] = {}
    for one, two in pairs:
        if two is None or not math.isfinite(one.score) or not math.isfinite(two.score):
            continue
        for name in (one.modality,) if scope == "modality" else one.tasks():
            mine, theirs = groups.setdefault(name, ([], []))
            mine.append(one.score)
            theirs.append(two.score)
    how = {"confidence": confidence, "power": power}
    found = [
        Difference(name, compare(mine, theirs, **how, claims=len(groups)))
        for name, (mine, theirs) in groups.items()
    ]
    return sorted(found, key=lambda one: (one.paired.difference, one.name))


def verdict(one: Paired) -> str:
    """Say what the items show; better as the gate shows it: `surely`, among several claims."""
    if one.high < 0:
        return "shown to be worse"
    return "shown to be better" if one.surely > 0 else "no difference shown"


def difference_rows(found: Sequence[Difference]) -> list[dict[str, Any]]:
    """Return one row a modality or task, for a chart and a table; shares as points."""
    return [
        {
            "name": one.name,
            "items": one.paired.n,
            "difference": 100 * one.paired.difference,
            "low": 100 * one.paired.low,
            "high": 100 * one.paired.high,
            "verdict": verdict(one.paired),
            "better items": one.paired.better,
            "worse items": one.paired.worse,
            "smallest difference that would be seen": 100 * one.paired.detectable,
        }
        for one in found
    ]


def outcomes(first: int, other: int | None) -> dict[str, tuple[bool, bool | None] | None]:
    """Return what items may be chosen by: in words -> (first is right, other is right)."""
    if other is None:
        return {"all": None, "right": (True, None), "wrong": (False, None)}
    return {
        "all": None,
        f"only version {other} right": (False, True),
        f"only version {first} right": (True, False),
        "both wrong": (False, False),
        "both right": (True, True),
    }


def chosen(
    pairs: Sequence[Pair], name: str | None, wanted: tuple[bool, bool | None] | None
) -> list[Pair]:
    """Return the items of a modality or task (None: of all) that ended so."""
    return [
        (one, two)
        for one, two in pairs
        if (name is None or name in one.names())
        and (wanted is None or wanted == (one.is_right, None if two is None else two.is_right))
    ]


def names_of(pairs: Sequence[Pair]) -> list[str]:
    """Return every modality and task that items count for, modalities first."""
    found = {name for one, _ in pairs for name in one.names()}
    first = [name for name in MODALITIES if name in found]
    return [*first, *sorted(found - set(first))]


def is_used(score: Score) -> str:
    """Say whether foreign media cost more than the score's uncertainty."""
    if score.swapped is None:
        return "no media"
    if not math.isfinite(score.swapped) or not math.isfinite(score.low):
        return "no number"
    return "yes" if score.swapped < score.low else "not shown"


def score_rows(scores: Mapping[str, Mapping[str, Score]]) -> list[dict[str, Any]]:
    """Return version -> name -> score as rows, by name, for a chart and a table."""
    names = list(dict.fromkeys(name for found in scores.values() for name in found))
    order = [*(n for n in MODALITIES if n in names), *sorted(set(names) - set(MODALITIES))]
    return [
        {
            "name": name,
            "version": version,
            "items": score.n,
            **{field: _finite(getattr(score, field)) for field in SHARES},
            "media used": is_used(score),
        }
        for name in order
        for version, found in scores.items()
        if (score := found.get(name)) is not None
    ]


def mean_of(scores: Mapping[str, Score]) -> float | None:
    """Return the mean of scores by modality; None where there are none, or one is no number."""
    shares = [one.score for one in scores.values()]
    return _finite(math.fsum(shares) / len(shares)) if shares else None


def bias_of(scores: Mapping[str, Score]) -> float | None:
    """Return the best modality less the worst; None as of `mean_of`."""
    shares = [one.score for one in scores.values()]
    return max(shares) - min(shares) if shares and all(map(math.isfinite, shares)) else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
