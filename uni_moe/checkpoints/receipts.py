"""Receipts of surgery: where the tensors of a model come from, over all operations on it.

A receipt holds `operation`, `inverse` (None where something was lost), `slots` (a name for each),
`origins` (one entry for each tensor that was put or changed) and `earlier`, the receipt before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uni_moe.checkpoints.tables import read_table
from uni_moe.model.assembly import BASE, RECEIPT
from uni_moe.model.surgery import SELF, Surgery

Receipt = Mapping[str, Any]
MERGE = "merge"
_EXPERT = re.compile(r".*\.layers\.(\d+)\.mlp\.experts\.down_proj")
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
    if (receipt.get("operation") or {}).get("name") in (MERGE, "tune"):
        return donor_of(receipt.get("earlier"), layer, slot)
    entry = next((e for e in receipt["origins"] if _is_expert(e, layer, slot)), None)
    if entry is None or entry["donor"] == BASE:
        return None
    if entry["donor"] != SELF:
        return _named(entry)
    return donor_of(receipt.get("earlier"), layer, _slot_in(entry["source"]))


def adapter_of(receipt: Receipt | None, target: str) -> str | None:
    """Return the adapter that the last operation merged into a tensor; None where it did not."""
    if receipt is None or (receipt.get("operation") or {}).get("name") != MERGE:
        return None
    entries: Sequence[Mapping[str, Any]] = receipt["origins"]
    return next((str(entry["donor"]) for entry in entries if entry["target"] == target), None)


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
