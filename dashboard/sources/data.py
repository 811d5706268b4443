"""The data of a version, or of what lies in artifacts/: tables, contracts, refused samples."""

from __future__ import annotations

from dashboard.sources.workspace import remembered, settled, workspace
from uni_moe.artifacts import Layout
from uni_moe.registry import contract_verdicts, generations, manifest_difference, rows
from uni_moe.registry.database import reading

Generation = generations.Generation
Stamp = tuple[tuple[str, int], ...]


_FAMILIES = ("samples", "validated", "corpus", "foundation", "align", "experts")
_SEEN = "seen"  # tables of registered models


def lying() -> Stamp:
    """Return what differs when another artifact lies in artifacts/, or a table came back."""
    layout = workspace()
    folders = (layout.artifacts / name for name in _FAMILIES)
    told = []
    for folder in (*folders, layout.artifacts, layout.store / _SEEN):
        try:
            told.append((folder.name, folder.stat().st_mtime_ns))
        except OSError:
            continue
    return tuple(told)


@remembered
def generation(layout: Layout, model: str | None, lies: Stamp) -> Generation:
    """Return the data of a model, or of what lies in artifacts/."""
    del lies  # part of the key alone
    return generations.generation(layout, model)


@remembered
def verdict(
    layout: Layout, model: str | None, lies: Stamp
) -> contract_verdicts.ContractVerdict | None:
    """Return what the contract said of these data."""
    del lies
    return contract_verdicts.contract_verdict(layout, generations.generation(layout, model))


@remembered
def refused(
    layout: Layout, model: str | None, lies: Stamp, reason: str | None, page: int
) -> rows.RefusedPage:
    """Return a page of refused samples."""
    del lies
    return rows.refused_page(layout, generations.generation(layout, model), reason, page)


@remembered
def sample(layout: Layout, model: str | None, lies: Stamp, key: str) -> rows.Row | None:
    """Return a sample's row by its key."""
    del lies
    return rows.sample_row(layout, generations.generation(layout, model), key)


Changes = dict[str, manifest_difference.DataChange | None]
"""Modality -> how its accepted samples differ; None where a manifest is not kept."""


def _is_known(found: Changes | None) -> bool:
    """Say whether every table was in the index; where nothing differs, it is asked again."""
    return found is not None and bool(found) and None not in found.values()


@settled(_is_known)
def drift(layout: Layout, before: str, after: str) -> Changes | None:
    """Return which accepted samples differ between two models' data, by modality.

    None where of one of them no data are known: then nothing is known of a drift.
    """
    sides = [generations.generation(layout, model).of("validated") for model in (before, after)]
    if not all(sides):
        return None
    found: Changes = {}
    with reading(layout, data=True) as session:
        for name in sorted({*sides[0], *sides[1]}):
            ids = [side[name].id if name in side else None for side in sides]
            if ids[0] != ids[1]:
                change = manifest_difference.data_change(session, ids[0], ids[1])
                if change is None or change:
                    found[name] = change
    return found
