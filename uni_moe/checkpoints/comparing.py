"""What differs between two model folders, with what their receipts say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from uni_moe.checkpoints.folders import read_model
from uni_moe.checkpoints.receipts import Receipt, adapter_of, donor_of, read_receipt
from uni_moe.model.difference import Finding, compare

_STACK = "language_model.model.layers.{}.mlp.experts.down_proj"


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
        adapter = adapter_of(of_b, one.name)
    else:
        donor = donor_of(of_b, one.layer, one.slot)
        if donor is not None and donor != donor_of(of_a, one.layer, one.slot):
            kind = one.kind if one.kind == "only in B" else "replaced"
            return dataclasses.replace(one, kind=kind, origin=donor)
        adapter = adapter_of(of_b, _STACK.format(one.layer))
    if adapter is not None and one.kind != "only in B":
        return dataclasses.replace(one, kind="low rank", origin=adapter)
    return one
