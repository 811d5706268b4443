"""What guessing reaches, per item: chance, the majority, the question alone. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from uni_moe.evaluate.metrics import normalize
from uni_moe.records import Sample


@dataclass(frozen=True)
class Guess:
    """Chance as a share, and the answers two blind guessers give."""

    chance: float
    majority: str
    question_only: str


class Guesser:
    """Guesses from the training split's answers; it never sees a medium.

    Every question of a training conversation counts. Answers are counted as `normalize` leaves
    them. Where training samples carry no groups, as conversations about several questions do not,
    a test item's group is stood for by its choices: the task's answers among them.
    """

    def __init__(self, training: Iterable[Sample]) -> None:
        self._by_question: dict[tuple[str, str], Counter[str]] = {}
        self._by_group: dict[tuple[str, str | None], Counter[str]] = {}
        self._by_task: dict[str, Counter[str]] = {}
        for sample in training:
            for question, answer in _rounds(sample):
                said = normalize(answer)
                self._by_question.setdefault((sample.task, question), Counter())[said] += 1
                self._by_group.setdefault((sample.task, sample.group), Counter())[said] += 1
                self._by_task.setdefault(sample.task, Counter())[said] += 1

    def guess(self, item: Sample) -> Guess:
        """Return the guesses for one item.

        Chance is 1 / choices, else 1 / distinct training answers of the task and group; 0 where
        training knows no answer.
        """
        *_, (question, _) = _rounds(item)
        answers = self._answers_of(item)
        possible = len(set(map(normalize, item.choices))) if item.choices else len(answers)
        asked = self._by_question.get((item.task, question), answers)
        return Guess(
            chance=1 / possible if possible else 0.0,
            majority=_commonest(answers),
            question_only=_commonest(asked),
        )

    def _answers_of(self, item: Sample) -> Counter[str]:
        """Return the training answers of the item's task and group, among its choices."""
        task = self._by_task.get(item.task, Counter())
        answers = self._by_group.get((item.task, item.group), task)
        if item.choices is None:
            return answers
        choices = set(map(normalize, item.choices))
        return Counter({answer: n for answer, n in answers.items() if answer in choices})


def _commonest(counts: Counter[str]) -> str:
    """Return the commonest answer; of several the first in the alphabet; of none nothing."""
    most = max(counts.values(), default=0)
    return min((answer for answer, count in counts.items() if count == most), default="")


def _rounds(sample: Sample) -> Iterator[tuple[str, str]]:
    """Return every question of a conversation with its answer."""
    question = ""
    for turn in sample.turns:
        if turn.role == "user":
            question = turn.text.strip()
        else:
            yield question, turn.text
