"""Retrainings as they come about: which artifacts each makes, and from what. Pure.

A retraining is nearly always for one modality: its samples are ingested anew, and what rests on
them is made again; the rest is what earlier ones made. Some are for all modalities, some start from
a model before. Names and edges are those of dvc.yaml.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from uni_moe.records import MODALITIES

SEES = {"image": "image", "video": "image", "audio": "audio", "speech": "speech"}
FULL, CHAINED = 0.05, 0.1  # shares of retrainings
_PARTS = ("foundation/", "align/", "experts/")


@dataclass(frozen=True, slots=True)
class Made:
    """An artifact. `parents` are (name, id); `modality` is None of what is of several."""

    id: str
    name: str
    stage: str
    kind: str
    parents: tuple[tuple[str, str], ...]
    modality: str | None


Named = Callable[[Made, int], str]
"""Gives an artifact its id, from all else that is known of it and its number."""


def by_number(made: Made, number: int) -> str:
    """Return an id of an artifact whose card is nowhere."""
    return hashlib.sha256(f"{made.name} {number}".encode()).hexdigest()


class Road:
    """Makes retrainings, one after the other, in the order of the stages."""

    def __init__(self, dice: random.Random, name: Named = by_number) -> None:
        """Begin with nothing; the first retraining is for all modalities."""
        self.count = 0
        self._dice, self._name = dice, name
        self._now: dict[str, str] = {}

    def choose(self) -> tuple[str, ...]:
        """Return the modalities of the next retraining."""
        whole = not self._now or self._dice.random() < FULL
        return MODALITIES if whole else (self._dice.choice(MODALITIES),)

    def retrain(self, touched: Sequence[str]) -> Iterator[Made]:
        """Give what one retraining makes, each when it is made."""
        for kind in touched:
            yield self.make(f"samples/{kind}", "ingest", "samples", (), kind)
        for kind in touched:
            yield self.make(f"validated/{kind}", "validate", "validated", [f"samples/{kind}"], kind)
        for kind in touched:
            above = [f"samples/{kind}", f"validated/{kind}"]
            yield self.make(f"corpus/{kind}", f"prepare@{kind}", "corpus", above, kind)
        yield from self._foundations(touched)
        for kind in touched:
            if kind in SEES:
                yield self.make(f"experts/{kind}", f"experts@{kind}", "expert", _expert(kind), kind)
        parts = [name for name in self._now if name.startswith(_PARTS)]
        yield self.make("assembled", "assemble", "model", parts)
        above = ["assembled", *(f"corpus/{kind}" for kind in MODALITIES)]
        more = ["model"] if "model" in self._now and self._dice.random() < CHAINED else []
        yield self.make("model", "tune", "model", [*above, *more])
        yield self.make("report", "evaluate", "report", ["model", *above[1:]])

    def _foundations(self, touched: Sequence[str]) -> Iterator[Made]:
        if "text" in touched:
            above = ["corpus/text"]
            yield self.make("foundation/language", "foundation@language", "foundation", above)
        parts = list(dict.fromkeys(SEES[kind] for kind in touched if kind in SEES))
        for part in parts:
            above = [f"corpus/{part}"]
            yield self.make(f"foundation/{part}", f"foundation@{part}", "foundation", above, part)
        for part in parts:
            above = [f"corpus/{part}", f"foundation/{part}", "foundation/language"]
            yield self.make(f"align/{part}", f"align@{part}", "connector", above, part)

    def make(
        self, name: str, stage: str, kind: str, above: Sequence[str], modality: str | None = None
    ) -> Made:
        """Return an artifact made of what now has these names; it has its name from now on."""
        parents = tuple((f"artifacts/{parent}", self._now[parent]) for parent in above)
        unnamed = Made("", f"artifacts/{name}", stage, kind, parents, modality)
        made = Made(self._name(unnamed, self.count), unnamed.name, stage, kind, parents, modality)
        self.count += 1
        self._now[name] = made.id
        return made


def _expert(kind: str) -> list[str]:
    part = SEES[kind]
    above = [f"corpus/{kind}", "foundation/language", f"foundation/{part}", f"align/{part}"]
    return [*above, "foundation/image", "align/image"] if kind == "speech" else above
