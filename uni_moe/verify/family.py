"""A registered model's family: its card and those of all that it was made from, in graph order.

Tuning may have gone on from a registered model. What was made after that is a generation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from uni_moe.records import Card
from uni_moe.registry.cards import Cards, generations

INGEST = "ingest"
DATA_STAGES = (INGEST, "validate", "prepare")
REPORTS = "evaluate"  # the stage of the road that judges; `uni-moe judge` is none
PHASES = ("align", "experts", "tune")  # what may be spread over processes
TRAINS = ("foundation", *PHASES)
STATES = "states.jsonl"  # where what was trained here tells of its states
Moved = Callable[[str], Sequence[str] | None]
"""Says of a registered model which raw data are others now than when it was made; None: unknown."""


@dataclass(frozen=True)
class Member:
    """An artifact of the family: its name in the workspace when it was made, and its card.

    `earlier` is the model of an earlier generation that it belongs to, None in the last one.
    """

    name: str
    card: Card
    earlier: str | None = None

    @property
    def label(self) -> str:
        """Its name for a person: every generation uses the same names."""
        return self.name if self.earlier is None else f"{self.name} of {self.earlier[:12]}"

    @property
    def is_data(self) -> bool:
        """Whether a data stage makes it."""
        return self.card.stage.partition("@")[0] in DATA_STAGES

    @property
    def is_trained(self) -> bool:
        """Whether steps were taken here to make it; a pretrained part was only adopted."""
        return self.card.stage.partition("@")[0] in TRAINS and not self.card.results.get(
            "pretrained"
        )


@dataclass(frozen=True)
class Family:
    """A model with what it was made from, parents before children; its own report is last.

    Where it was tuned from a registered model, `before` is that one's family: the generation before
    this one. Data that both were made from are in both.
    """

    members: tuple[Member, ...]
    before: Family | None = None

    @property
    def model(self) -> str:
        """The id of the model whose family it is."""
        return next(one.card.id for one in reversed(self.members) if one.card.stage != REPORTS)

    @property
    def line(self) -> tuple[Family, ...]:
        """All generations, this one first."""
        return (self, *(self.before.line if self.before is not None else ()))

    @property
    def everyone(self) -> tuple[Member, ...]:
        """The members of all generations, each once, parents before children."""
        found: dict[str, Member] = {}
        for family in reversed(self.line):
            found.update({one.card.id: one for one in family.members})
        return tuple(found.values())

    def stages(self, members: Iterable[Member]) -> dict[str, tuple[Member, ...]]:
        """Return stage -> what it makes of these, in an order that can run."""
        found: dict[str, list[Member]] = {}
        for one in members:
            found.setdefault(one.card.stage, []).append(one)
        return {stage: tuple(made) for stage, made in found.items()}


def family_of(
    ancestors: Sequence[tuple[str, Card]],
    reports: Sequence[tuple[str, Card]] = (),
    verdicts: Sequence[tuple[str, Card]] = (),
) -> Family:
    """Return a family in graph order.

    Args:
        ancestors: the names and cards of a model and all that it was made from.
        reports: reports about it; the last one that the road made of this family's data alone
            belongs to it.
        verdicts: of contracts; those on this family's samples alone belong to it.
    """
    cards = {card.id: (name, card) for name, card in ancestors}
    made = [one for one in reports if one[1].stage == REPORTS]
    own = [one for one in made if set(one[1].parents.values()) <= cards.keys()]
    depths = depths_of({one: card for one, (_, card) in cards.items()})
    model = max(depths, key=lambda one: depths[one])
    last, *earlier = [
        _in_order(generation, depths, verdicts) for generation in generations(cards, model)
    ]
    before = None
    for ordered in reversed(earlier):
        of = ordered[-1][1].id
        before = Family(tuple(Member(name, card, of) for name, card in ordered), before)
    return Family(tuple(Member(name, card) for name, card in [*last, *own[-1:]]), before)


def _in_order(
    generation: Cards, depths: Mapping[str, int], verdicts: Sequence[tuple[str, Card]]
) -> list[tuple[str, Card]]:
    """Return what a generation holds, parents before children, verdicts behind what they judged."""
    judged = [one for one in verdicts if generation.keys() >= set(one[1].parents.values())]
    behind = {
        card.id: max((depths[parent] for parent in card.parents.values()), default=0) + 0.5
        for _, card in judged
    }
    places: dict[str, float] = {**depths, **behind}
    return sorted([*generation.values(), *judged], key=lambda one: (places[one[1].id], one[0]))


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
