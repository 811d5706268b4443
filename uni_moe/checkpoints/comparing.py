"""What differs between two model folders, with what their receipts say."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from uni_moe.checkpoints.folders import read_model
from uni_moe.checkpoints.receipts import (
    Merged,
    Receipt,
    donor_of,
    merged_into,
    merged_into_expert,
    read_receipt,
)
from uni_moe.model.difference import Finding, compare

_SLACK = 1e-3  # share of a norm that summing in another order may change


def difference(a: Path, b: Path) -> list[Finding]:
    """Return what differs between two model folders; the receipt in B names donors and adapters.

    Raises:
        ConfigError: a folder holds no model of ours.
    """
    (config_a, state_a), (config_b, state_b) = read_model(a), read_model(b)
    receipts = read_receipt(a), read_receipt(b)
    return [
        _with_origin(one, *receipts)
        for one in compare(state_a, state_b, config_a.sparse_layers, config_b.sparse_layers)
    ]


def _with_origin(one: Finding, of_a: Receipt | None, of_b: Receipt | None) -> Finding:
    """Say who gave or changed what is not A's own; A may have had the same donor before."""
    if one.kind not in ("changed", "low rank", "only in B"):
        return one
    if one.layer is None or one.slot is None:
        return _by_adapter(one, merged_into(of_b, of_a, one.name))
    donor = donor_of(of_b, one.layer, one.slot)
    before = one.slot if one.source is None else one.source
    if donor is not None and donor != donor_of(of_a, one.layer, before):
        kind = one.kind if one.kind == "only in B" else "replaced"
        return dataclasses.replace(one, kind=kind, origin=donor)
    return _by_adapter(one, merged_into_expert(of_b, of_a, one.layer, one.slot))


def _by_adapter(one: Finding, merged: Sequence[Merged]) -> Finding:
    """Name the adapters that a difference is by, where it is as large as what they changed.

    A low rank shows by itself; rounding hides it, and then the norm in the receipt must tell.
    """
    if one.kind == "only in B" or not merged:
        return one
    if one.kind == "low rank" or _as_large(one.norm, [each.norm for each in merged]):
        origin = ", ".join(each.adapter for each in merged)
        return dataclasses.replace(one, kind="low rank", origin=origin)
    return one


def _as_large(norm: float | None, parts: Sequence[float | None]) -> bool:
    """Say whether changes of these norms can add up to one of this norm."""
    known = [part for part in parts if part is not None]
    if norm is None or len(known) < len(parts):
        return False
    most, total = max(known), sum(known)
    return (1 - _SLACK) * (2 * most - total) <= norm <= (1 + _SLACK) * total
