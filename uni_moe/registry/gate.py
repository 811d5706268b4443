"""The pure decision whether a candidate may replace the champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from uni_moe.config import Gate
from uni_moe.records import EvalReport, Score


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, with the sentences that say why."""

    candidate: str
    champion: str | None
    promoted: bool
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a JSON object."""
        return {**asdict(self), "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """Read what `to_json` wrote."""
        return cls(**{**data, "reasons": tuple(data["reasons"])})


def decide(candidate: EvalReport, champion: EvalReport | None, rules: Gate) -> Verdict:
    """Compare two reports about the same items.

    Every modality with media must beat guessing by `min_over_chance`. Against a champion no
    modality may lose more than `margin`, and the mean may not fall. Intervals play no part here.
    """
    if champion is not None and champion.model == candidate.model:
        return _verdict(candidate, champion, (), ("the candidate is the champion already",))
    problems = _too_close_to_guessing(candidate, rules)
    praise = [_sentence(name, score) for name, score in candidate.modalities.items()]
    if champion is not None:
        problems += _worse_than(candidate, champion, rules)
        praise.append(f"mean {_p(candidate.mean)} against the champion's {_p(champion.mean)}")
    return _verdict(candidate, champion, problems, praise, promoted=not problems)


def _verdict(
    candidate: EvalReport,
    champion: EvalReport | None,
    problems: list[str] | tuple[str, ...],
    otherwise: list[str] | tuple[str, ...],
    *,
    promoted: bool = False,
) -> Verdict:
    before = champion.model if champion is not None else None
    return Verdict(candidate.model, before, promoted, tuple(problems or otherwise))


def _too_close_to_guessing(report: EvalReport, rules: Gate) -> list[str]:
    return [
        f"{name}: {_p(score.score)} is less than {_p(rules.min_over_chance)} above guessing "
        f"({_p(_guessing(score))})"
        for name, score in report.modalities.items()
        if score.swapped is not None and score.score - _guessing(score) < rules.min_over_chance
    ]


def _worse_than(candidate: EvalReport, champion: EvalReport, rules: Gate) -> list[str]:
    other = sorted(
        name
        for name in {*candidate.items, *champion.items}
        if candidate.items.get(name) != champion.items.get(name)
    )
    if other:
        return [
            f"{', '.join(other)}: candidate and champion were judged on different items, so they "
            "cannot be compared; judge the champion on today's test split first"
        ]
    problems = []
    for name, score in candidate.modalities.items():
        before = champion.modalities[name].score
        if before - score.score > rules.margin:
            problems.append(
                f"{name}: {_p(score.score)} is more than {_p(rules.margin)} below the champion's "
                f"{_p(before)}"
            )
    if candidate.mean < champion.mean:
        problems.append(f"mean {_p(candidate.mean)} is below the champion's {_p(champion.mean)}")
    return problems


def _sentence(name: str, score: Score) -> str:
    return f"{name}: {_p(score.score)}, guessing reaches {_p(_guessing(score))}"


def _guessing(score: Score) -> float:
    return max(score.chance, score.majority)


def _p(share: float) -> str:
    return f"{100 * share:.1f} %"
