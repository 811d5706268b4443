"""What guessing reaches, per item: chance, the majority, the question alone. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from uni_moe.records import Sample


@dataclass(frozen=True)
class Guess:
    """Chance as a share, and the answers two blind guessers give."""

    chance: float
    majority: str
    question_only: str


class Guesser:
    """Guesses from the training split's answers; it never sees a medium.

    Every question of a training conversation counts. A task's `group` (the kind of a question) is
    known of test items alone, so answers of a group are those of its choices, or of its questions.
    """

    def __init__(self, training: Iterable[Sample]) -> None:
        self._by_question: dict[tuple[str, str], Counter[str]] = {}
        self._by_task: dict[str, Counter[str]] = {}
        for sample in training:
            for question, answer in _rounds(sample):
                key = (sample.task, question)
                self._by_question.setdefault(key, Counter())[answer] += 1
                self._by_task.setdefault(sample.task, Counter())[answer] += 1

    def guess(self, item: Sample) -> Guess:
        """Return the guesses for one item."""
        *_, (question, _) = _rounds(item)
        seen = self._by_task.get(item.task, Counter())
        choices = item.choices
        among = Counter({a: n for a, n in seen.items() if choices is None or a in choices})
        asked = self._by_question.get((item.task, question), among)
        return Guess(
            chance=1 / len(choices) if choices else 1 / max(1, len(seen)),
            majority=_commonest(among, ""),
            question_only=_commonest(asked or among, ""),
        )


def _commonest(counts: Counter[str], otherwise: str) -> str:
    """Return the commonest answer; of several the first in the alphabet."""
    if not counts:
        return otherwise
    most = max(counts.values())
    return min(answer for answer, count in counts.items() if count == most)


def _rounds(sample: Sample) -> Iterator[tuple[str, str]]:
    """Return every question of a conversation with its answer."""
    question = ""
    for turn in sample.turns:
        if turn.role == "user":
            question = turn.text.strip()
        else:
            yield question, turn.text
