"""A registered model's family: its card and those of all that it was made from, in graph order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from uni_moe.records import Card

DATA_STAGES = ("ingest", "validate", "prepare")
REPORTS = "evaluate"  # the stage of the road that judges; `uni-moe judge` is none
STATES = "states.jsonl"  # what an artifact holds that was trained here


@dataclass(frozen=True)
class Member:
    """An artifact of the family: its name in the workspace when it was made, and its card."""

    name: str
    card: Card

    @property
    def is_data(self) -> bool:
        """Whether a data stage makes it."""
        return self.card.stage.partition("@")[0] in DATA_STAGES

    @property
    def is_trained(self) -> bool:
        """Whether steps were taken here to make it; a pretrained part was only adopted."""
        return STATES in self.card.files


@dataclass(frozen=True)
class Family:
    """A model with its ancestors, parents before children; the report of the same data is last."""

    members: tuple[Member, ...]

    @property
    def by_id(self) -> dict[str, Member]:
        """Card id -> member."""
        return {one.card.id: one for one in self.members}

    @property
    def begun_with(self) -> str | None:
        """The registered model that the model was tuned from; None of one that was assembled."""
        kept = (
            parent
            for one in self.members
            for name, parent in one.card.parents.items()
            if name.startswith("store/")
        )
        return next(kept, None)

    def parents_of(self, one: Member) -> list[Member]:
        """Return what an artifact was made from."""
        known = self.by_id
        return [known[parent] for parent in one.card.parents.values()]

    def stages(self, members: Iterable[Member]) -> dict[str, tuple[Member, ...]]:
        """Return stage -> what it makes of these, in an order that can run."""
        found: dict[str, list[Member]] = {}
        for one in members:
            found.setdefault(one.card.stage, []).append(one)
        return {stage: tuple(made) for stage, made in found.items()}


def family_of(
    ancestors: Sequence[tuple[str, Card]], reports: Sequence[tuple[str, Card]] = ()
) -> Family:
    """Return a family in graph order.

    Args:
        ancestors: the names and cards of a model and all that it was made from.
        reports: reports about it; the last one that the road made of this family's data alone
            belongs to it.
    """
    known = {card.id for _, card in ancestors}
    made = [one for one in reports if one[1].stage == REPORTS]
    own = [one for one in made if set(one[1].parents.values()) <= known]
    depths = depths_of({card.id: card for _, card in ancestors})
    ordered = sorted(ancestors, key=lambda one: (depths[one[1].id], one[0]))
    return Family(tuple(Member(name, card) for name, card in [*ordered, *own[-1:]]))


def depths_of(cards: Mapping[str, Card]) -> dict[str, int]:
    """Return card id -> the length of the longest way from a source to it."""
    depths: dict[str, int] = {}
    waiting = dict(cards)
    while waiting:
        ready = {
            card_id: card
            for card_id, card in waiting.items()
            if all(parent in depths or parent not in cards for parent in card.parents.values())
        }
        assert ready, "cards name their parents by hash, so there is no circle"
        for card_id, card in ready.items():
            depths[card_id] = 1 + max((depths.get(p, 0) for p in card.parents.values()), default=0)
            del waiting[card_id]
    return depths


def differences(told: Card, found: Card) -> list[str]:
    """Say how an artifact that was made again differs from its card, code aside."""
    said = []
    for what in ("params", "parents", "files", "results"):
        old, new = dict(getattr(told, what)), dict(getattr(found, what))
        wrong = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        if wrong:
            said.append(f"{what}: {_few([_change(what, key, old, new) for key in wrong])}")
    return said


def _change(what: str, key: str, old: Mapping[str, object], new: Mapping[str, object]) -> str:
    if key not in new:
        return f"{key} is missing"
    if key not in old:
        return f"{key} is new"
    if what in ("files", "parents"):
        return f"{key} is {str(new[key])[:12]}, {str(old[key])[:12]} is told"
    return f"{key} is {str(new[key])[:60]}, {str(old[key])[:60]} is told"


def _few(parts: Sequence[str], most: int = 3) -> str:
    rest = len(parts) - most
    return "; ".join(parts[:most]) + (f"; {rest} more" if rest > 0 else "")
