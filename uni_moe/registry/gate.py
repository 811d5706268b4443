"""The pure decision whether a candidate may replace the champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from uni_moe.config import Gate
from uni_moe.records import MEDIA_KINDS, EvalReport, Score
from uni_moe.registry.paired import Paired, compare, items_for

_ROUNDING = 1e-9  # 0.63 - 0.60 is 0.030000000000000027


@dataclass(frozen=True)
class Exam:
    """A report and the score of each item: modality -> scores, in an order that the items give.

    `how` holds the settings by which items were scored, by their names for a person.
    """

    report: EvalReport
    scores: Mapping[str, Sequence[float]]
    how: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, with the sentences that say why.

    `evidence` holds the numbers that it compared: rules, means, and modality -> shares, with the
    paired comparison where there is a champion.
    """

    candidate: str
    champion: str | None
    promoted: bool
    reasons: tuple[str, ...]
    evidence: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The verdict for a person, a reason a line."""
        head = f"promoted: {self.candidate[:12]}" if self.promoted else "not promoted, because"
        return "\n  - ".join((head, *self.reasons))

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a JSON object."""
        return {**asdict(self), "reasons": list(self.reasons), "evidence": dict(self.evidence)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """Read what `to_json` wrote."""
        return cls(**{**data, "reasons": tuple(data["reasons"])})


def decide(candidate: Exam, champion: Exam | None, rules: Gate) -> Verdict:
    """Compare two models on the same items, scored alike. Reports name models by their cards' ids.

    Every modality with media must beat guessing (chance, the majority's answer, the best guess from
    the question alone) by `min_over_chance`. Against a champion every modality must be shown to
    lose no more than `margin`, and one must be shown better: by paired intervals of `confidence`,
    whose error is shared among the modalities that could be the better one.
    """
    ours = candidate.report
    before = champion.report.model if champion is not None else None
    compared: dict[str, Paired] = {}
    if before == ours.model:
        reasons = ("the candidate is the champion already",)
        evidence = _evidence(ours, champion, rules, compared)
        return Verdict(ours.model, before, promoted=False, reasons=reasons, evidence=evidence)
    problems = _too_close_to_guessing(ours, rules)
    praise = [_sentence(name, score) for name, score in ours.modalities.items()]
    if champion is None:
        praise.append("there is no champion yet")
    elif other := [*_other_items(ours, champion.report), *_other_ways(candidate, champion)]:
        problems += other
    else:
        compared = _compared(candidate, champion, rules)
        told = [_difference(name, one) for name, one in compared.items()]
        wrong = _not_shown(compared, candidate, champion, rules)
        problems += [*wrong, *told] if wrong else []
        praise += told
    return Verdict(
        ours.model,
        before,
        promoted=not problems,
        reasons=tuple(problems or praise),
        evidence=_evidence(ours, champion, rules, compared),
    )


def in_words(rules: Gate, champion: int | None) -> str:
    """Say what a candidate will be asked for, against the champion of this version if there is one.

    It says what `decide` and the approvals around it do; `power` decides nothing.
    """
    told = [
        f"every modality with media must beat guessing by {_points(rules.min_over_chance)} "
        "(`gate.min_over_chance`)"
    ]
    if champion is None:
        told.append("there is no champion to compare with")
    else:
        told.append(
            f"against the champion, version {champion}, every modality must be shown to lose no "
            f"more than {_points(rules.margin)} (`gate.margin`) and one must be shown to be "
            f"better, by paired intervals of {_p(rules.confidence)} (`gate.confidence`)"
        )
    people = f"{rules.approvals} people have" if rules.approvals else "nobody has"
    return "; ".join([*told, f"{people} to approve it (`gate.approvals`)"])


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


def _other_ways(candidate: Exam, champion: Exam) -> list[str]:
    told = [
        f"{name}: the candidate was scored by {candidate.how.get(name)}, the champion by "
        f"{champion.how.get(name)}"
        for name in sorted({*candidate.how, *champion.how})
        if candidate.how.get(name) != champion.how.get(name)
    ]
    if not told:
        return []
    return [
        f"{'; '.join(told)}, so their scores cannot be compared; judge each anew by `uni-moe judge "
        "VERSION`, so that both are scored as today"
    ]


def _compared(candidate: Exam, champion: Exam, rules: Gate) -> dict[str, Paired]:
    return {
        name: compare(
            candidate.scores[name],
            champion.scores[name],
            confidence=rules.confidence,
            power=rules.power,
            claims=len(candidate.report.modalities),
        )
        for name in candidate.report.modalities
    }


def _not_shown(
    compared: Mapping[str, Paired], candidate: Exam, champion: Exam, rules: Gate
) -> list[str]:
    """Return what the items do not show; `not … >=` also refuses what is not a number."""
    scores = {name: (candidate.scores[name], champion.scores[name]) for name in compared}
    problems = [
        f"{name}: not shown to be no worse: {_points(-one.low)} may be lost, the gate allows "
        f"{_points(rules.margin)}; {_wanted(one, *scores[name], rules)}"
        for name, one in compared.items()
        if not one.low >= -rules.margin - _ROUNDING
    ]
    if not any(one.surely > 0 for one in compared.values()):
        problems.append(
            "no modality is shown to be better: a difference counts where its interval, widened "
            f"for {len(compared)} modalities to choose from, lies above 0"
        )
    return problems


def _wanted(one: Paired, ours: Sequence[float], theirs: Sequence[float], rules: Gate) -> str:
    items = items_for(ours, theirs, margin=rules.margin, confidence=rules.confidence)
    if items is None and one.difference < -rules.margin:
        return "the loss itself is beyond that"
    if items is None:
        return "no number of items would show that of a difference like this"
    return f"with {len(ours)} items the interval is too wide, about {items} would do"


def _difference(name: str, one: Paired) -> str:
    return (
        f"{name}: {_signed(one.difference)} points against the champion "
        f"({_signed(one.low)} to {_signed(one.high)}; {one.n} items, {one.better} better, "
        f"{one.worse} worse; the smallest difference that would be seen: {_points(one.detectable)})"
    )


def _evidence(
    candidate: EvalReport, champion: Exam | None, rules: Gate, compared: Mapping[str, Paired]
) -> dict[str, Any]:
    """Return the numbers behind a verdict; the champion's are None where it has none."""
    old = {} if champion is None else champion.report.modalities
    return {
        "rules": asdict(rules),
        "mean": {
            "candidate": candidate.mean,
            "champion": None if champion is None else champion.report.mean,
        },
        "modalities": {
            name: {
                "candidate": score.score,
                "champion": old[name].score if name in old else None,
                "guessing": _guessing(score),
                "n": score.n,
                "paired": compared[name].to_json() if name in compared else None,
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


def _signed(share: float) -> str:
    return f"{100 * share:+.2f}"
