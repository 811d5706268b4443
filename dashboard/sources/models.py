"""Registered models: which there are, which is meant, and which was the champion when."""

from __future__ import annotations

from dashboard.sources.workspace import remembered
from uni_moe.artifacts import Layout
from uni_moe.registry import read
from uni_moe.registry.naming import SHORTEST


@remembered
def models(layout: Layout) -> list[read.Version]:
    """Return every registered model, newest last."""
    return read.models(layout)


@remembered
def reigns(layout: Layout) -> list[read.Reign]:
    """Return who was the champion from when until when, oldest first."""
    return read.history(layout)


def champion() -> read.Version | None:
    """Return the version that is live."""
    return next((one for one in models() if one.is_champion), None)


def usual() -> read.Version | None:
    """Return the version that a page shows unasked: the champion, or else the newest."""
    return champion() or next(iter(reversed(models())), None)


def called(name: str) -> read.Version | None:
    """Return the version of a number or of the beginning of an id; None where it names not one."""
    known = models()
    found = [one for one in known if str(one.number) == name]
    if not found and len(name) >= SHORTEST:
        found = [one for one in known if one.model.startswith(name)]
    return found[0] if len(found) == 1 else None
