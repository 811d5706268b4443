"""Scores of one answer, and intervals of many. Pure."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

VERSION = 2  # of what counts as the same answer; part of every report's card
_CLOSING = ".,;:!? "
_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"


@dataclass(frozen=True)
class Scored:
    """One answer's score in [0, 1]. An answer outside the choices is unparseable and scores 0."""

    score: float
    unparseable: bool = False


def normalize(answer: str) -> str:
    """Return an answer as it is compared.

    Composed Unicode, lower case, single spaces, no closing sentence marks (unless the answer is
    nothing else). Articles and inner punctuation stay: "a cat" is not "cat", "-3" is not "3".
    Source: the paper's strict exact match (section 4.2), made blind to case and closing marks.
    """
    plain = " ".join(unicodedata.normalize("NFC", answer).casefold().split())
    return plain.rstrip(_CLOSING) or plain


def spoken(answer: str) -> str:
    """Return an answer as words are compared: lower case, punctuation is a space, "don't" stays."""
    text = unicodedata.normalize("NFC", answer).casefold()
    words = "".join(map(_letter_or_space, text)).split()
    return " ".join(bare for word in words if (bare := word.strip("'")))


def _letter_or_space(letter: str) -> str:
    if letter in _APOSTROPHES:
        return "'"
    return " " if unicodedata.category(letter).startswith("P") else letter


def metric_of(name: str) -> str:
    """Return the metric that a sample's declared metric is scored by: `wer` or `exact_match`.

    A metric that is not built in (such as a caption's `cider+exact`) is scored by exact match, the
    stricter one, so that no answer gets credit that it did not earn.
    """
    return "wer" if name == "wer" else "exact_match"


def score_answer(metric: str, answer: str, reference: str, choices: Sequence[str] | None) -> Scored:
    """Score one answer.

    `wer` gives max(0, 1 - word error rate) over `spoken` words; everything else is exact match
    after `normalize`. What is not among the choices is wrong: no answer gets credit by chance.
    The mean of clipped items is not 1 - the pooled word error rate of a whole set.
    """
    found = normalize(answer)
    if choices is not None and found not in map(normalize, choices):
        return Scored(0.0, unparseable=True)
    if metric_of(metric) == "wer":
        return Scored(max(0.0, 1.0 - word_error_rate(spoken(answer), spoken(reference))))
    return Scored(float(found == normalize(reference)))


def word_error_rate(answer: str, reference: str) -> float:
    """Return edits per reference word (Levenshtein distance over words).

    Source: the usual definition, (S + D + I) / N; an empty reference counts one word.
    """
    said, wanted = answer.split(), reference.split()
    row = list(range(len(said) + 1))
    for i, word in enumerate(wanted, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(said, 1):
            cost = min(row[j] + 1, row[j - 1] + 1, before + (word != other))
            before, row[j] = row[j], cost
    return row[-1] / max(1, len(wanted))


def interval(scores: Sequence[float], confidence: float) -> tuple[float, float]:
    """Return the interval of the mean: Wilson's for shares, else a seeded bootstrap."""
    if all(score in (0.0, 1.0) for score in scores):
        return wilson(int(sum(scores)), len(scores), confidence)
    return bootstrap(scores, confidence)


def wilson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's score interval of a share. Source: E. B. Wilson, JASA 22 (1927)."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(
    scores: Sequence[float], confidence: float, *, rounds: int = 2000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean, from a fixed seed.

    Source: B. Efron, Annals of Statistics 7 (1979). Items count as independent.
    """
    values = np.asarray(scores, dtype=float)
    dice, n = np.random.default_rng(0), len(values)
    means = [values[dice.integers(n, size=n)].mean() for _ in range(rounds)]
    low, high = np.quantile(means, (0.5 - confidence / 2, 0.5 + confidence / 2))
    return float(low), float(high)
