"""A registered model that is verified: its family, its params then, and how its runs were made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uni_moe.artifacts import Layout
from uni_moe.config import Params, Platform, of_card
from uni_moe.registry.read import Version
from uni_moe.verify.code import code_here
from uni_moe.verify.comparable import (
    Here,
    Origin,
    code_differs,
    comparable,
    other_circumstances,
    unknown,
)
from uni_moe.verify.family import PHASES, Family, Member, Moved
from uni_moe.verify.origins import here_for, routes_for
from uni_moe.verify.past_params import params_then


@dataclass(frozen=True)
class Case:
    """What every grade above 0 is given; `say` tells a person what is being done."""

    layout: Layout
    version: Version
    family: Family
    now: Params
    origins: Mapping[str, Sequence[Origin]]
    moved: Moved
    say: Callable[[str], None]

    def params_for(self, generation: Family, made: Iterable[Member]) -> dict[str, Any]:
        """Return the params by which a stage makes these artifacts of a generation again."""
        cards = (one.card for one in generation.members)
        return params_then(self.now, cards, [one.card for one in made])

    def obstacles(self, members: Iterable[Member]) -> list[str]:
        """Say why artifacts that are made here could not be held against these."""
        found = []
        for one in members:
            origins = self.origins.get(one.card.id, ())
            found += [
                code_differs(one.card, code_here(one.card.stage), origins),
                other_circumstances(one.card.stage, self._repeated(one)),
            ]
        return list(dict.fromkeys(filter(None, found)))

    def routes_for(self, one: Member) -> Mapping[str, Any] | None:
        """Return the routes by which an artifact is made again, None where no record tells them."""
        run = comparable(self._repeated(one))
        if run is None or run.computed is None:
            return None
        return routes_for(_choice(one), run)

    def _repeated(self, one: Member) -> list[tuple[Origin, Here]]:
        """Return the runs that made an artifact, each with how it would be repeated here."""
        origins = self.origins.get(one.card.id, ())
        return [(origin, here_for(_choice(one), origin)) for origin in origins]

    def is_unknown(self, one: Member) -> bool:
        """Say whether no record tells under which circumstances an artifact was made."""
        computes = "platform" in one.card.params and not one.card.results.get("pretrained")
        return unknown(self.origins.get(one.card.id, ()), trained=computes)

    def spread_for(self, one: Member) -> Mapping[str, Any]:
        """Return how the training of an artifact was spread over processes; empty for one."""
        origins = self.origins.get(one.card.id, ())
        told = origins[-1].spread if origins else None
        if one.card.stage.partition("@")[0] not in PHASES or told is None:
            return {}
        return told


def _choice(one: Member) -> Platform | None:
    """Return how an artifact's params let its stage compute, None of a stage without routes."""
    told = one.card.params.get("platform")
    return None if told is None else of_card(Platform, told)
