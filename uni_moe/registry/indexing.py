"""Brings the index up to what cards and run folders say."""

from __future__ import annotations

from uni_moe.artifacts import Layout
from uni_moe.registry.database import writing
from uni_moe.registry.importing import import_all


def index(layout: Layout) -> dict[str, int]:
    """Import every card and run folder that is not in the index yet; return what it holds."""
    with writing(layout) as session:
        return import_all(session, layout)


def rebuild(layout: Layout) -> dict[str, int]:
    """Drop the index and import it again; readers see the old one until the new one is whole.

    Cards that were overwritten in artifacts/ before they were registered are forgotten by this.
    """
    with writing(layout, afresh=True) as session:
        return import_all(session, layout)
