"""What has to run again without some samples: no more than is sound. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from uni_moe.registry.graph import Artifact, in_order


@dataclass(frozen=True)
class Again:
    """The stages of a family of artifacts, in their order, by what becomes of them.

    `run` made what the samples are in. `repeat` made what they are not in from files that change:
    `uni-moe run` runs these too, and they learn the same again. `stay` has nothing to do with them.
    """

    of: str
    run: tuple[str, ...]
    repeat: tuple[str, ...]
    stay: tuple[str, ...]


def again(of: str, family: Mapping[str, Artifact], hit: Collection[str]) -> Again:
    """Divide the stages of a family by what is hit; `of` says whose family it is."""
    run: dict[str, None] = {}
    repeat: dict[str, None] = {}
    stay: dict[str, None] = {}
    changed: set[str] = set()
    for one in in_order(family):
        if one.stage is None:
            continue
        if one.id in hit:
            run[one.stage] = None
        elif changed.isdisjoint(one.parents.values()):
            stay[one.stage] = None
            continue
        else:
            repeat[one.stage] = None
        changed.add(one.id)
    return Again(
        of,
        tuple(run),
        tuple(name for name in repeat if name not in run),
        tuple(name for name in stay if name not in run and name not in repeat),
    )
