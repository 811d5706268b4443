"""Judges answers: which items, what they score, how they are summed up. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from uni_moe.evaluate.baselines import Guess, Guesser
from uni_moe.evaluate.metrics import Scored, interval, metric_of, score_answer
from uni_moe.evaluate.swap import derangement
from uni_moe.records import Sample, Score, canonical_json, sha256_text

Answerer = Callable[[Sequence[Sample], str], list[str]]  # items, what for -> their answers


@dataclass(frozen=True)
class Judged:
    """One item with what was said of it."""

    item: Sample
    answer: str
    scored: Scored
    guess: Guess
    swapped_answer: str | None
    swapped: Scored | None

    @property
    def reference(self) -> str:
        """The reference answer."""
        return self.item.turns[-1].text

    def row(self) -> dict[str, Any]:
        """Return the item as a line of answers.jsonl; `correct` means a full score."""
        return {
            "key": self.item.key,
            "id": self.item.id,
            "task": self.item.task,
            "group": self.item.group,
            "modality": self.item.modality,
            "prompt": self.item.turns[-2].text.strip(),
            "reference": self.reference,
            "answer": self.answer,
            "metric": metric_of(self.item.metric),
            "correct": self.scored.score == 1.0,
            **asdict(self.scored),
            "swapped_answer": self.swapped_answer,
            "swapped_score": None if self.swapped is None else self.swapped.score,
            "question_only": self.guess.question_only,
        }


def chosen(items: Sequence[Sample], most: int | None, seed: int) -> list[Sample]:
    """Return the items to judge: all, or a seeded choice of `most`, in the order of their keys."""
    ranked = sorted(items, key=lambda i: sha256_text(f"{seed}/{i.key}"))
    return sorted(ranked[:most], key=lambda i: i.key)


def judge(
    items: Sequence[Sample], training: Iterable[Sample], answer: Answerer, *, seed: int
) -> list[Judged]:
    """Let a model answer items of one modality, with their own media and with others'."""
    guesser = Guesser(training)
    partners = derangement([item for item in items if item.media], seed)
    exchanged = [item for item in items if item.key in partners]
    foreign = [with_media_of(item, partners[item.key]) for item in exchanged]
    said = answer(items, "own media")
    said_of_others = answer(foreign, "media swapped") if foreign else []
    swapped = {item.key: text for item, text in zip(exchanged, said_of_others, strict=True)}
    return [
        _judged(item, own, guesser.guess(item), swapped.get(item.key))
        for item, own in zip(items, said, strict=True)
    ]


def with_media_of(item: Sample, other: Sample) -> Sample:
    """Return an item that asks its own question about another item's media.

    It has a key of its own, because examples are remembered by key.
    """
    return replace(item, key=f"{item.key}#media-of-{other.key}", media=other.media)


def sum_up(judged: Sequence[Judged], confidence: float) -> Score:
    """Return the score of a group of items beside what guessing reaches."""
    scores = [one.scored.score for one in judged]
    low, high = interval(scores, confidence)
    swapped = [one.swapped.score for one in judged if one.swapped is not None]
    return Score(
        n=len(judged),
        score=fmean(scores),
        low=low,
        high=high,
        chance=fmean(one.guess.chance for one in judged),
        majority=fmean(_blind(one, one.guess.majority) for one in judged),
        question_only=fmean(_blind(one, one.guess.question_only) for one in judged),
        swapped=fmean(swapped) if swapped else None,
    )


def by_task(judged: Iterable[Judged]) -> Mapping[str, list[Judged]]:
    """Group items by task, and beside it by `task:group` where the task has groups."""
    groups: dict[str, list[Judged]] = {}
    for one in judged:
        groups.setdefault(one.item.task, []).append(one)
        if one.item.group:
            groups.setdefault(f"{one.item.task}:{one.item.group}", []).append(one)
    return dict(sorted(groups.items()))


def items_hash(items: Sequence[Sample]) -> str:
    """Return the identity of a set of items: what is asked and how it is scored.

    Reports on equal sets can be compared.
    """
    rows = [
        [item.id, [ref.content for ref in item.media], item.metric, item.choices, item.group]
        for item in items
    ]
    return sha256_text("\n".join(sorted(map(canonical_json, rows))))


def _judged(item: Sample, answer: str, guess: Guess, swapped: str | None) -> Judged:
    return Judged(
        item,
        answer,
        _score(item, answer),
        guess,
        swapped,
        None if swapped is None else _score(item, swapped),
    )


def _score(item: Sample, answer: str) -> Scored:
    return score_answer(item.metric, answer, item.turns[-1].text, item.choices)


def _blind(one: Judged, answer: str) -> float:
    return _score(one.item, answer).score
