"""What has to run again without some samples: no more than is sound. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from uni_moe.registry.cards import KEPT
from uni_moe.registry.graph import Artifact, in_order


@dataclass(frozen=True)
class Again:
    """The stages of a family of artifacts, in their order, by what becomes of them.

    `run` made what the samples are in. `repeat` made what they are not in from files that change:
    `uni-moe run` runs these too, and they learn the same again. `stay` has nothing to do with them.
    `not_from` names the registered models that tuning began with and that the samples are in: what
    begins with one of them has the samples again, so `run` holds what a model from scratch needs.
    """

    of: str
    run: tuple[str, ...]
    repeat: tuple[str, ...]
    stay: tuple[str, ...]
    not_from: tuple[str, ...] = ()


def again(of: str, family: Mapping[str, Artifact], hit: Collection[str]) -> Again:
    """Divide the stages of a family by what is hit; `of` says whose family it is.

    Of a stage that worked in several generations the last one tells.
    """
    own = _last_generation(family)
    stages = {family[one].stage for one in own}
    begun_with = {
        name: parent
        for one in family.values()
        for name, parent in one.parents.items()
        if name.startswith(KEPT)
    }
    not_from = tuple(sorted(name for name, parent in begun_with.items() if parent in hit))
    run: dict[str, None] = {}
    repeat: dict[str, None] = {}
    stay: dict[str, None] = {}
    changed: set[str] = set()
    for one in in_order(family):
        if one.stage is None:
            continue
        counts = one.id in own or one.stage not in stages
        if one.id not in own and not not_from:
            word = stay
        elif one.id in hit:
            word = run
        else:
            word = stay if changed.isdisjoint(one.parents.values()) else repeat
        if word is not stay:
            changed.add(one.id)
        if counts:
            word[one.stage] = None
    return Again(
        of,
        tuple(run),
        tuple(name for name in repeat if name not in run),
        tuple(name for name in stay if name not in run and name not in repeat),
        not_from,
    )


def _last_generation(family: Mapping[str, Artifact]) -> set[str]:
    """Return the ids of what is above the newest artifacts, but for models that tuning began with.

    Those have a generation of their own, with stages of the same names.
    """
    parents = {parent for one in family.values() for parent in one.parents.values()}
    waiting = [one for one in family if one not in parents]
    found: set[str] = set()
    while waiting:
        one = waiting.pop()
        if one in family and one not in found:
            found.add(one)
            waiting += [
                parent for name, parent in family[one].parents.items() if not name.startswith(KEPT)
            ]
    return found
