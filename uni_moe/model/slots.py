"""Where mixtures stand in a network's state, and how receipts name what fills their slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from uni_moe.model.merging import digest

LAYERS = "language_model.model.layers"
PARTS = ("gate", "up", "down")
ROUTER = "router.weight"
ROUTER_STD = 0.02
BASE, SELF, NEW = "base", "self", "new"  # a dense network, the model operated on, drawn from a seed


def mlp_of(layer: int) -> str:
    """Return what the names of a layer's feed-forward begin with."""
    return f"{LAYERS}.{layer}.mlp."


def entry_of(
    target: str, slot: int | None, donor: str, source: str, tensor: Tensor
) -> Mapping[str, Any]:
    """Return where a tensor, or one slot of it, comes from, as receipts say it."""
    place = {} if slot is None else {"slot": slot}
    where = {"donor": donor, "source": source, "sha256": digest([tensor])}
    return {"target": target, **place, **where}


def drawn(seed: int) -> str:
    """Return the source of a router row that is new."""
    return f"normal, std {ROUTER_STD}, seed {seed}"
