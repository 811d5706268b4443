"""Scores of one answer, and intervals of many. Pure."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

VERSION = 1  # of what counts as the same answer; part of every report


@dataclass(frozen=True)
class Scored:
    """One answer's score in [0, 1]. An answer outside the choices is unparseable and scores 0."""

    score: float
    unparseable: bool = False


def normalize(answer: str) -> str:
    """Return an answer as it is compared: lower case, single spaces, no closing punctuation."""
    return " ".join(answer.lower().split()).rstrip(string.punctuation + " ")


def score_answer(
    metric: str, answer: str, reference: str, choices: Sequence[str] | None
) -> Scored:
    """Score one answer.

    `wer` gives max(0, 1 - word error rate); everything else is exact match after `normalize`. No
    answer ever gets credit by chance: what is not among the choices is wrong.
    """
    found, wanted = normalize(answer), normalize(reference)
    if metric == "wer":
        return Scored(max(0.0, 1.0 - word_error_rate(found, wanted)))
    outside = choices is not None and found not in map(normalize, choices)
    return Scored(float(found == wanted), unparseable=outside)


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
    """Return the percentile bootstrap interval of the mean, from a fixed seed."""
    values = np.asarray(scores, dtype=float)
    picks = np.random.default_rng(0).integers(len(values), size=(rounds, len(values)))
    edges = (0.5 - confidence / 2, 0.5 + confidence / 2)
    low, high = np.quantile(values[picks].mean(1), edges)
    return float(low), float(high)
