"""Which artifacts, and which registered models made from them, go stale when stages run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from uni_moe.artifacts import Layout, read_card
from uni_moe.registry.cards import all_cards, artifact_folders, reachable
from uni_moe.registry.read import models


@dataclass(frozen=True)
class Stale:
    """An artifact that its stage makes anew, and the versions in whose lineage it stands."""

    name: str
    card: str
    stage: str
    versions: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


def stale_artifacts(layout: Layout, stages: Iterable[str]) -> list[Stale]:
    """Return the artifacts here that these stages make anew, by name.

    Raises:
        LineageError: a card cannot be read.
    """
    planned = set(stages)
    cards = all_cards(layout)
    above = {version.number: reachable(cards, version.model) for version in models(layout)}
    found = []
    for folder in artifact_folders(layout.artifacts):
        card = read_card(folder)
        if card.stage in planned:
            versions = tuple(sorted(n for n, ids in above.items() if card.id in ids))
            found.append(Stale(layout.name_of(folder), card.id, card.stage, versions))
    return found
