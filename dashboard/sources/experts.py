"""What is known of a model's experts: how they were judged, where they come from, which rules."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dashboard.sources.models import models
from dashboard.sources.workspace import remembered, settled, stamp, workspace
from uni_moe.artifacts import CARD, Layout
from uni_moe.config import RouterAlarms
from uni_moe.records import EvalReport
from uni_moe.registry import read
from uni_moe.registry.cards import json_file, read_report
from uni_moe.registry.origins import Made, weights_of

_RECEIPT = "receipt.json"
_MERGE = "merge"  # the operation that folds an adapter in
_STACK = re.compile(r".*\.layers\.(\d+)\.mlp\.experts\.\w+")  # a weight of all experts of a layer
_LONGEST = 100  # operations that are told
Here = tuple[int, int] | None
"""What differs when something came into a folder, or went."""


@dataclass(frozen=True)
class Surgery:
    """A receipt in short: a name for each slot, the layers, and what was done, the first first.

    `moved` is layer -> by how much each expert changed, a norm, where an adapter was merged last.
    """

    slots: tuple[str, ...]
    layers: tuple[str, ...]
    operations: tuple[str, ...]
    moved: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def _is_read(found: EvalReport) -> bool:
    """Say whether it is a report; one that cannot be read raises, and is not kept."""
    return isinstance(found, EvalReport)


@settled(_is_read)
def report(layout: Layout, number: int, report_id: str) -> EvalReport:
    """Return the report that judged a version.

    Raises:
        LineageError: it is absent or of another version of this code.
    """
    del report_id  # part of the key alone
    return read_report(read.find(layout, str(number)).report_folder)


def surgery(version: read.Version) -> Surgery | None:
    """Return what the receipt beside a version's weights says; None where it is not here.

    Raises:
        LineageError: it is broken.
    """
    return _surgery(version.number, stamp(version.folder))


@remembered
def _surgery(layout: Layout, number: int, here: Here) -> Surgery | None:
    del here  # part of the key alone: weights come and go
    told = json_file(read.find(layout, str(number)).model_folder / _RECEIPT)
    return None if not isinstance(told, dict) else _in_short(told)


def slots_of(record: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the experts that a run trained: of the version that came of it.

    Of a run that is at work they are those of the mixture that lies in the workspace.
    """
    made = set((record.get("artifacts") or {}).values())
    version = next((one for one in models() if one.model in made), None)
    if version is not None:
        found = surgery(version)
        return found.slots if found is not None else ()
    return (
        _assembled_slots(stamp(workspace().assembled)) if record.get("status") == "running" else ()
    )


@remembered
def _assembled_slots(layout: Layout, here: Here) -> tuple[str, ...]:
    """Return the names of the experts of the mixture in the workspace; none without one."""
    del here
    told = json_file(layout.assembled / _RECEIPT)
    return _in_short(told).slots if isinstance(told, dict) else ()


def _in_short(receipt: dict[str, Any]) -> Surgery:
    slots = tuple(str(one) for one in receipt.get("slots") or ())
    operations: list[str] = []
    layers: tuple[str, ...] = ()
    one: Any = receipt
    while isinstance(one, dict) and len(operations) < _LONGEST:
        operations.append(str((one.get("operation") or {}).get("name") or "unknown"))
        layers = layers or tuple(str(layer) for layer in one.get("sparse_layers") or ())
        one = one.get("earlier")
    return Surgery(slots, layers, tuple(reversed(operations)), _moved(receipt, len(slots)))


def _moved(receipt: Mapping[str, Any], experts: int) -> dict[str, tuple[float, ...]]:
    """Return layer -> the norm of every expert's change, if the last operation was a merge."""
    found: dict[str, list[list[float]]] = {}
    merged = (
        receipt.get("origins") if (receipt.get("operation") or {}).get("name") == _MERGE else ()
    )
    for entry in merged or ():
        match = _STACK.fullmatch(str(entry.get("target")))
        norms = entry.get("norm")
        if not match or not isinstance(norms, list) or len(norms) != experts:
            continue  # of another part, or of an older receipt
        if all(isinstance(norm, int | float) for norm in norms):
            found.setdefault(match[1], []).append(norms)
    return {layer: tuple(map(math.hypot, *rows)) for layer, rows in found.items()}


def params_of(version: read.Version) -> dict[str, Any]:
    """Return the params in a version's card; none where the card is not here."""
    return _params_of(version.number, stamp(version.folder))


@remembered
def _params_of(layout: Layout, number: int, here: Here) -> dict[str, Any]:
    del here
    card = json_file(read.find(layout, str(number)).model_folder / CARD)
    return dict(card["params"]) if isinstance(card, dict) and "params" in card else {}


@remembered
def origins(layout: Layout, model: str) -> dict[str, Made]:
    """Return name -> what a model was made from that holds weights, with the run that made it."""
    return weights_of(layout, model)


def rules_in(params: dict[str, Any]) -> RouterAlarms | None:
    """Return when routing is an alarm, as the params of a run or a card say; None: they do not."""
    try:
        return RouterAlarms(**params["telemetry"]["router"])
    except (KeyError, TypeError):
        return None
