"""Registered models, what the gate said of them, and how good they are."""

from __future__ import annotations

from statistics import fmean

from dashboard.sources.workspace import remembered
from uni_moe.artifacts import Layout
from uni_moe.records import Score
from uni_moe.registry import read


@remembered
def models(layout: Layout) -> list[read.Version]:
    """Return every registered model, newest last."""
    return read.models(layout)


@remembered
def reigns(layout: Layout) -> list[read.Reign]:
    """Return who was the champion from when until when, oldest first."""
    return read.history(layout)


@remembered
def decisions(layout: Layout) -> list[read.Decision]:
    """Return every verdict of the gate, oldest first."""
    return read.verdicts(layout)


@remembered
def scores(layout: Layout, report: str) -> dict[str, Score]:
    """Return modality -> score of a report; nothing of one that the index does not know."""
    return read.scores(layout).get(report, {})


@remembered
def means(layout: Layout) -> dict[str, float]:
    """Return report -> mean score over modalities, of every report that the index knows."""
    found = read.scores(layout)
    return {one: fmean(score.score for score in told.values()) for one, told in found.items()}
