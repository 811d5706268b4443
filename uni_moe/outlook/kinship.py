"""Whether an artifact was made from what is here now, or is left of an earlier run."""

from __future__ import annotations

from pathlib import Path

from uni_moe.artifacts import CARD, Layout, read_card


def is_judged(layout: Layout, modality: str) -> bool:
    """Say whether a contract has judged the samples of a modality that are here."""
    return _made_from(layout, layout.validated(modality), layout.samples(modality))


def is_prepared(layout: Layout, modality: str) -> bool:
    """Say whether the corpus of a modality was made from the samples that are here, as judged."""
    samples, validated = layout.samples(modality), layout.validated(modality)
    return is_judged(layout, modality) and _made_from(
        layout, layout.corpus(modality), samples, validated
    )


def _made_from(layout: Layout, folder: Path, *parents: Path) -> bool:
    if not all((one / CARD).is_file() for one in (folder, *parents)):
        return False
    known = read_card(folder).parents
    return all(known.get(layout.name_of(one)) == read_card(one).id for one in parents)
