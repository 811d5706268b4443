"""Sentences that name the answers a recipe's tasks can have, as text-only samples.

A small foundation's language model learns from text alone. Where media of real sets ask for words
that no text of the recipe holds, it could not even say them; these sentences teach it the words
and the questions, and nothing about any medium.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from uni_moe.config import SentencesSource
from uni_moe.data.sources.base import RawSample
from uni_moe.records import Turn

LICENSE = "CC0-1.0"
_TOLD = (
    "It is {answer}.",
    "This is {answer}, not {other}.",
    "Not {other}, but {answer}.",
    "We know that it is {answer}.",
    "{answer} it is, and not {other}.",
    "Somebody says {answer}.",
    "One would say {answer}, never {other}.",
    "The answer is {answer}.",
)


@dataclass(frozen=True)
class Sentences:
    """A fixed number of short conversations, each a function of the seed and its place."""

    config: SentencesSource

    @property
    def name(self) -> str:
        """The source's name."""
        return self.config.name

    def __len__(self) -> int:
        """How many samples there are."""
        return self.config.count

    def samples(self) -> Iterator[RawSample]:
        """Give the samples: prompts and their answers in turn, so that each comes equally often."""
        pairs = [
            (prompt, answer, answers)
            for prompt, answers in self.config.answers.items()
            for answer in answers
        ]
        for index in range(self.config.count):
            prompt, answer, answers = pairs[index % len(pairs)]
            dice = random.Random(f"{self.config.seed}/{index}")
            other = dice.choice([word for word in answers if word != answer] or ["nothing"])
            told = dice.choice(_TOLD).format(answer=answer, other=other)
            yield RawSample(
                name=f"{index:06d}",
                turns=(Turn("user", (f"{told} {prompt}",)), Turn("assistant", (answer,))),
                license=LICENSE,
                split="train",
                task=f"{self.name}/text",
            )
