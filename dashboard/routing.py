"""What routers did, from a run's lines and from reports to numbers that charts show. Pure.

A layer, an expert's slot and a modality are named as records name them. A share is one of the
visits of its layer. What is no number stays NaN: pages say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uni_moe.records import MODALITIES

Loads = Mapping[str, Mapping[str, Sequence[float]]]
"""modality -> layer -> share of visits by slot"""
ALL = "all"


@dataclass(frozen=True)
class Seen:
    """What tokens of one modality did in one layer; `entropy` is the router's mean, in nats."""

    tokens: float
    visits: tuple[float, ...]
    entropy: float

    @property
    def shares(self) -> tuple[float, ...]:
        """Each expert's share of the visits; NaN where there are none."""
        total = sum(self.visits)
        return tuple(visits / total if total else math.nan for visits in self.visits)

    @property
    def entropy_share(self) -> float:
        """The entropy over that of an even choice."""
        return self.entropy / math.log(len(self.visits)) if len(self.visits) > 1 else math.nan


@dataclass(frozen=True)
class Step:
    """What routers did at a step, or over several that end with it: layer -> modality -> seen."""

    step: int
    layers: Mapping[str, Mapping[str, Seen]] = field(default_factory=dict)


def step_of(line: Mapping[str, Any]) -> Step | None:
    """Return what a line of a run's routing says; None of one that is not as we write them."""
    try:
        layers = {
            str(layer): {str(kind): _seen(told) for kind, told in kinds.items()}
            for layer, kinds in line["layers"].items()
        }
        return Step(int(line["step"]), layers)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _seen(told: Mapping[str, Any]) -> Seen:
    return Seen(
        float(told["tokens"]), tuple(float(one) for one in told["visits"]), float(told["entropy"])
    )


def joined(steps: Sequence[Step]) -> Step:
    """Return several steps as one: visits add up, entropies are weighed by tokens."""
    layers: dict[str, dict[str, list[Seen]]] = {}
    for step in steps:
        for layer, kinds in step.layers.items():
            for kind, seen in kinds.items():
                layers.setdefault(layer, {}).setdefault(kind, []).append(seen)
    return Step(
        steps[-1].step if steps else 0,
        {
            layer: {kind: _sum(found) for kind, found in kinds.items()}
            for layer, kinds in layers.items()
        },
    )


def _sum(found: Sequence[Seen]) -> Seen:
    wide = max(len(one.visits) for one in found)
    same = [one for one in found if len(one.visits) == wide]
    tokens = sum(one.tokens for one in same)
    entropy = sum(one.entropy * one.tokens for one in same) / tokens if tokens else math.nan
    visits = tuple(sum(one.visits[i] for one in same) for i in range(wide))
    return Seen(tokens, visits, entropy)


def in_parts(steps: Sequence[Step], parts: int) -> list[Step]:
    """Return neighbouring steps joined, so that at most so many are left."""
    size = max(1, math.ceil(len(steps) / parts))
    return [joined(steps[start : start + size]) for start in range(0, len(steps), size)]


def over_all(kinds: Mapping[str, Seen]) -> Seen | None:
    """Return a layer's modalities as one; None where there are none."""
    return _sum(list(kinds.values())) if kinds else None


def top_k_of(step: Step) -> int | None:
    """Return how many experts a token visits, by the visits; None where there are no numbers."""
    seen = [one for kinds in step.layers.values() for one in kinds.values()]
    tokens, visits = sum(one.tokens for one in seen), sum(sum(one.visits) for one in seen)
    share = visits / tokens if tokens else math.nan
    return round(share) if math.isfinite(share) else None


def loads_of(step: Step) -> Loads:
    """Return modality -> layer -> shares, and under `ALL` those over all modalities."""
    found: dict[str, dict[str, Sequence[float]]] = {}
    for layer, kinds in step.layers.items():
        for kind, seen in kinds.items():
            found.setdefault(kind, {})[layer] = seen.shares
        every = over_all(kinds)
        if every is not None:
            found.setdefault(ALL, {})[layer] = every.shares
    return found


def with_all(load: Loads) -> Loads:
    """Add the mean over modalities, each counted alike, under `ALL`."""
    found: dict[str, Sequence[float]] = {}
    for layer in layers_of(load):
        rows = [shares[layer] for shares in load.values() if layer in shares]
        if len({len(row) for row in rows}) == 1:
            found[layer] = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return {**load, ALL: found}


def layers_of(load: Loads) -> list[str]:
    """Return the layers that loads know, in their order."""
    return sorted({layer for shares in load.values() for layer in shares}, key=_number)


def modalities_of(load: Loads) -> list[str]:
    """Return the modalities that loads know, in their order, `ALL` aside."""
    known = [name for name in MODALITIES if name in load]
    return [*known, *sorted(set(load) - set(known) - {ALL})]


def _number(layer: str) -> tuple[int, str]:
    return (int(layer), layer) if layer.isdecimal() else (2**31, layer)


def dead(shares: Sequence[float], dead_share: float) -> list[int]:
    """Return the experts with less than this share of an even load, as alarms of training do."""
    return [slot for slot, share in enumerate(shares) if share * len(shares) < dead_share]


@dataclass(frozen=True)
class Quiet:
    """An expert that gets hardly any visits: of all tokens, or only of some modalities."""

    layer: str
    slot: int
    share: float  # over all modalities
    is_dead: bool
    modalities: tuple[str, ...]


def quiet_ones(load: Loads, dead_share: float) -> list[Quiet]:
    """Return the experts that are dead, and those that some modality hardly visits."""
    found = []
    for layer in layers_of(load):
        every = load.get(ALL, {}).get(layer, ())
        names = modalities_of(load)
        by_name = {name: dead(load[name].get(layer, ()), dead_share) for name in names}
        gone = dead(every, dead_share)
        for slot, share in enumerate(every):
            shunned = tuple(name for name in names if slot in by_name[name])
            if shunned or slot in gone:
                found.append(Quiet(layer, slot, share, slot in gone, shunned))
    return found


def slot_name(slots: Sequence[str], slot: int) -> str:
    """Return an expert's number with its name, such as `2 video`."""
    return f"{slot} {slots[slot]}" if slot < len(slots) else str(slot)


def heat_rows(load: Loads, slots: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row a cell: modality, layer, expert, its share and the even one."""
    return [
        {
            "modality": kind,
            "layer": layer,
            "expert": slot_name(slots, slot),
            "share": share if math.isfinite(share) else None,
            "even share": 1 / len(load[kind][layer]),
        }
        for kind in modalities_of(load)
        for layer in layers_of(load)
        if layer in load[kind]
        for slot, share in enumerate(load[kind][layer])
    ]


def unknown_cells(load: Loads) -> int:
    """Return how many shares are no number."""
    return sum(
        not math.isfinite(share)
        for kind in modalities_of(load)
        for shares in load[kind].values()
        for share in shares
    )


def time_rows(
    steps: Sequence[Step], layer: str, modality: str, slots: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the share of each expert of a layer at each step, for one modality or `ALL`."""
    rows = []
    for step in steps:
        kinds = step.layers.get(layer, {})
        seen = over_all(kinds) if modality == ALL else kinds.get(modality)
        for slot, share in enumerate(() if seen is None else seen.shares):
            if math.isfinite(share):
                rows.append({"step": step.step, "expert": slot_name(slots, slot), "share": share})
    return rows


def entropy_rows(steps: Sequence[Step], layer: str) -> list[dict[str, Any]]:
    """Return the router's entropy of a layer at each step by modality, as share of an even one."""
    return [
        {"step": step.step, "modality": kind, "entropy share": seen.entropy_share}
        for step in steps
        for kind, seen in sorted(step.layers.get(layer, {}).items(), key=_by_modality)
        if math.isfinite(seen.entropy_share)
    ]


def entropy_table(step: Step) -> list[dict[str, Any]]:
    """Return one row a layer: the entropy's share of an even one by modality."""
    layers = sorted(step.layers, key=_number)
    return [
        {
            "layer": layer,
            **{
                kind: seen.entropy_share if math.isfinite(seen.entropy_share) else None
                for kind, seen in sorted(step.layers[layer].items(), key=_by_modality)
            },
        }
        for layer in layers
    ]


def _by_modality(item: tuple[str, Seen]) -> int:
    return MODALITIES.index(item[0]) if item[0] in MODALITIES else len(MODALITIES)
