"""Made-up steps, as a loop would report them."""

import torch

from uni_moe.model.config import KINDS
from uni_moe.model.routing_sums import RoutingSums
from uni_moe.train.batches import Seen, StepReport


def seen(slot, key, *, modality="image", source="cats", tokens=4, truncated=0):
    return Seen(slot, f"{source}/{key}", f"id of {key}", modality, source, tokens, truncated)


def report(step, named=(), *, losses=None, ranks=1, loss=2.0, gradient_norm=1.0, **more):
    """Return a step's report; `named` are Seen, computed in turn by the ranks."""
    losses = losses or [loss * one.tokens for one in named]
    return StepReport(
        step=step,
        loss=loss,
        gradient_norm=gradient_norm,
        learning_rate=1e-3,
        seen=tuple((one.slot % ranks, one) for one in named),
        by_draw=tuple((total, one.tokens) for total, one in zip(losses, named, strict=True)),
        routing=more.pop("routing", {}),
        waited_s=more.pop("waited_s", 0.01),
        took_s=more.pop("took_s", 0.1),
        draws=len(named),
        **more,
    )


def routed(visits, *, shares=None, entropy=1.0, kind="image"):
    """Return the sums of a layer whose tokens have one modality and two visits each."""
    tokens = sum(visits) / 2
    shares = shares or [visit / 2 for visit in visits]
    table = torch.zeros(len(KINDS), 2 * len(visits) + 2, dtype=torch.float64)
    row = [*visits, *shares, entropy * tokens, tokens]
    table[KINDS.index(kind)] = torch.tensor(row, dtype=torch.float64)
    return RoutingSums(table)
