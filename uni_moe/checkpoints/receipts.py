"""Receipts of surgery: where the tensors of a model come from, over all operations on it.

A receipt holds `operation`, `inverse` (None where something was lost), `slots` (a name for each),
`origins` (one entry for each tensor that was put or changed) and `earlier`, the receipt before it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uni_moe.checkpoints.tables import read_table
from uni_moe.model.assembly import RECEIPT
from uni_moe.model.slots import BASE, SELF
from uni_moe.model.surgery import Surgery

Receipt = Mapping[str, Any]
MERGE = "merge"
_EXPERT = re.compile(r".*\.layers\.(\d+)\.mlp\.experts\.down_proj")
_FEED = re.compile(r".*\.layers\.(\d+)\.mlp\.(?:experts\.)?\w+_proj(?:\.weight)?")
_SLOT = re.compile(r".*\[(\d+)\]")


def read_receipt(model: Path) -> Receipt | None:
    """Return a model's receipt; None where surgery never touched it."""
    file = model / RECEIPT
    return read_table(file) if file.is_file() else None


def slot_names(plan: Surgery, earlier: Receipt | None) -> list[str]:
    """Return a name for every slot: that of its donor, or the one that it had."""
    before = list((earlier or {}).get("slots", [])) or [f"slot {i}" for i in range(plan.before)]
    return [
        before[origin.slot] if origin.donor == SELF else f"{origin.donor}[{origin.slot}]"
        for origin in plan.slots
    ]


def donor_of(receipt: Receipt | None, layer: int, slot: int) -> str | None:
    """Return who gave an expert, by all receipts; None where it was always there."""
    if receipt is None:
        return None
    if _operation(receipt) in (MERGE, "tune"):
        return donor_of(receipt.get("earlier"), layer, slot)
    entry = next((e for e in receipt["origins"] if _is_expert(e, layer, slot)), None)
    if entry is None or entry["donor"] == BASE:
        return None
    if entry["donor"] != SELF:
        return _named(entry)
    return donor_of(receipt.get("earlier"), layer, _slot_in(entry["source"]))


@dataclass(frozen=True)
class Merged:
    """An adapter that was merged, and by how much it changed what was asked about, where known."""

    adapter: str
    norm: float | None


def merged_into(of_b: Receipt | None, of_a: Receipt | None, name: str) -> list[Merged]:
    """Return the adapters merged into a tensor of B since it was A, the latest last."""
    found = []
    for receipt in _since(of_b, of_a):
        if _operation(receipt) == MERGE:
            found += _merged([e for e in receipt["origins"] if e["target"] == name])
    return found[::-1]


def merged_into_expert(
    of_b: Receipt | None, of_a: Receipt | None, layer: int, slot: int
) -> list[Merged]:
    """Return the same of an expert, through the slots that it stood in."""
    found = []
    for receipt in _since(of_b, of_a):
        if _operation(receipt) == MERGE:
            found += _merged([e for e in receipt["origins"] if _feeds(e, layer)], slot)
            continue
        entry = next((e for e in receipt["origins"] if _is_expert(e, layer, slot)), None)
        if entry is not None and entry["donor"] == SELF:
            slot = _slot_in(entry["source"])
        elif entry is not None and entry["donor"] != BASE:
            break  # what was merged before went away with the expert that stood here
    return found[::-1]


def _since(of_b: Receipt | None, of_a: Receipt | None) -> Iterator[Receipt]:
    while of_b is not None and of_b != of_a:
        yield of_b
        of_b = of_b.get("earlier")


def _operation(receipt: Receipt) -> str | None:
    name: str | None = (receipt.get("operation") or {}).get("name")
    return name


def _merged(entries: Sequence[Mapping[str, Any]], slot: int = 0) -> list[Merged]:
    """Return one merge's adapter with the norm over all its entries; none without entries."""
    if not entries:
        return []
    norms = [entry.get("norm") for entry in entries]  # older receipts have none
    own = [norm[slot] if isinstance(norm, list) else norm for norm in norms]
    known = [float(norm) for norm in own if norm is not None]
    norm = math.hypot(*known) if len(known) == len(own) else None
    return [Merged(str(entries[0]["donor"]), norm)]


def _feeds(entry: Mapping[str, Any], layer: int) -> bool:
    match = _FEED.fullmatch(entry["target"])
    return match is not None and int(match[1]) == layer


def _is_expert(entry: Mapping[str, Any], layer: int, slot: int) -> bool:
    match = _EXPERT.fullmatch(entry["target"])
    return match is not None and int(match[1]) == layer and entry["slot"] == slot


def _named(entry: Mapping[str, Any]) -> str:
    match = _SLOT.fullmatch(entry["source"])
    return f"{entry['donor']}[{match[1]}]" if match else str(entry["donor"])


def _slot_in(source: str) -> int:
    match = _SLOT.fullmatch(source)
    assert match is not None
    return int(match[1])
