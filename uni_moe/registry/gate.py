"""The pure decision whether a candidate may replace the champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from uni_moe.config import Gate
from uni_moe.records import MEDIA_KINDS, EvalReport, Score

_ROUNDING = 1e-9  # 0.63 - 0.60 is 0.030000000000000027


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, with the sentences that say why.

    `evidence` holds the numbers that it compared: rules, means, and modality -> shares.
    """

    candidate: str
    champion: str | None
    promoted: bool
    reasons: tuple[str, ...]
    evidence: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a JSON object."""
        return {**asdict(self), "reasons": list(self.reasons), "evidence": dict(self.evidence)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """Read what `to_json` wrote."""
        return cls(**{**data, "reasons": tuple(data["reasons"])})


def decide(candidate: EvalReport, champion: EvalReport | None, rules: Gate) -> Verdict:
    """Compare two reports about the same items. A report names its model by the card's id.

    Every modality with media must beat guessing (chance, the majority's answer, the best guess from
    the question alone) by `min_over_chance`. Against a champion no
    modality may lose more than `margin`, and the mean may not fall. Intervals play no part here.
    """
    before = champion.model if champion is not None else None
    evidence = _evidence(candidate, champion, rules)
    if before == candidate.model:
        reasons = ("the candidate is the champion already",)
        return Verdict(candidate.model, before, promoted=False, reasons=reasons, evidence=evidence)
    problems = _too_close_to_guessing(candidate, rules)
    praise = [_sentence(name, score) for name, score in candidate.modalities.items()]
    if champion is None:
        praise.append("there is no champion yet")
    else:
        problems += _other_items(candidate, champion) or _worse_than(candidate, champion, rules)
        praise.append(f"mean {_p(candidate.mean)} against the champion's {_p(champion.mean)}")
    return Verdict(
        candidate.model,
        before,
        promoted=not problems,
        reasons=tuple(problems or praise),
        evidence=evidence,
    )


def _too_close_to_guessing(report: EvalReport, rules: Gate) -> list[str]:
    """Return what is wrong; `not … >=` also refuses a score that is not a number."""
    media = {name: score for name, score in report.modalities.items() if name in MEDIA_KINDS}
    if not media:
        return ["no modality with media was judged; give a source with media a test split"]
    return [
        f"{name}: {_p(score.score)} is {_points(score.score - _guessing(score))} above guessing "
        f"({_p(_guessing(score))}); the gate asks for {_points(rules.min_over_chance)}"
        for name, score in media.items()
        if not score.score - _guessing(score) >= rules.min_over_chance - _ROUNDING
    ]


def _other_items(candidate: EvalReport, champion: EvalReport) -> list[str]:
    names = sorted(
        name
        for name in {*candidate.items, *champion.items, *candidate.modalities, *champion.modalities}
        if candidate.items.get(name) != champion.items.get(name)
        or (name in candidate.modalities) != (name in champion.modalities)
    )
    if not names:
        return []
    return [
        f"{', '.join(names)}: candidate and champion were judged on different items, so their "
        "scores cannot be compared; judge the champion on today's items by `uni-moe judge`, then "
        "give `uni-moe register`"
    ]


def _worse_than(candidate: EvalReport, champion: EvalReport, rules: Gate) -> list[str]:
    problems = []
    for name, score in candidate.modalities.items():
        before = champion.modalities[name].score
        if not before - score.score <= rules.margin + _ROUNDING:
            problems.append(
                f"{name}: {_p(score.score)} is {_points(before - score.score)} below the "
                f"champion's {_p(before)}; the gate allows {_points(rules.margin)}"
            )
    if not candidate.mean >= champion.mean - _ROUNDING:
        problems.append(f"mean {_p(candidate.mean)} is below the champion's {_p(champion.mean)}")
    return problems


def _evidence(candidate: EvalReport, champion: EvalReport | None, rules: Gate) -> dict[str, Any]:
    """Return the numbers behind a verdict; the champion's are None where it has none."""
    old = {} if champion is None else champion.modalities
    return {
        "rules": asdict(rules),
        "mean": {
            "candidate": candidate.mean,
            "champion": None if champion is None else champion.mean,
        },
        "modalities": {
            name: {
                "candidate": score.score,
                "champion": old[name].score if name in old else None,
                "guessing": _guessing(score),
                "n": score.n,
            }
            for name, score in candidate.modalities.items()
        },
    }


def _sentence(name: str, score: Score) -> str:
    return f"{name}: {_p(score.score)}, guessing reaches {_p(_guessing(score))}"


def _guessing(score: Score) -> float:
    return max(score.chance, score.majority, score.question_only)


def _p(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(share: float) -> str:
    return f"{100 * share:.2f} points"
