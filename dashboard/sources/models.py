"""Registered models, and which of them was the champion when."""

from __future__ import annotations

from dashboard.sources.workspace import remembered
from uni_moe.artifacts import Layout
from uni_moe.registry import read


@remembered
def models(layout: Layout) -> list[read.Version]:
    """Return every registered model, newest last."""
    return read.models(layout)


@remembered
def reigns(layout: Layout) -> list[read.Reign]:
    """Return who was the champion from when until when, oldest first."""
    return read.history(layout)
