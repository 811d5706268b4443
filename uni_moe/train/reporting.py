"""From what every rank computed of a step to one report of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from uni_moe.errors import StageError, bullets
from uni_moe.model.routing_sums import RoutingSums, stacked, unstacked
from uni_moe.train.batches import MicroBatch, Seen, StepLoss
from uni_moe.train.world import gathered


@dataclass(frozen=True)
class Share:
    """What one rank computed of a step, off the device and ready to be sent."""

    seen: tuple[Seen, ...]
    by_draw: list[list[float]]
    layers: tuple[int, ...]
    tables_LMX: Tensor | None
    draws: int
    positions: int
    computed: int
    attended: int
    parts: dict[str, tuple[float, float]]
    auxiliary: dict[str, float]


@dataclass
class Together:
    """What all ranks computed of a step, in the words of StepReport; empty but on the first."""

    seen: tuple[tuple[int, Seen], ...] = ()
    by_draw: tuple[tuple[float, int], ...] = ()
    routing: Mapping[int, RoutingSums] = field(default_factory=dict)
    draws: int = 0
    positions: int = 0
    computed: int = 0
    attended: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    auxiliary: dict[str, float] = field(default_factory=dict)


def together(batches: Sequence[MicroBatch], found: Sequence[StepLoss]) -> Together:
    """Bring a step's shares together on the first rank. All ranks call it."""
    return joined(gathered(share_of(batches, found)))


def share_of(batches: Sequence[MicroBatch], found: Sequence[StepLoss]) -> Share:
    """Return a rank's share; the device is waited for once for draws, routing and the rest."""
    named = [one.by_draw for one in found if one.by_draw is not None]
    tables = [stacked(one.routing) for one in found if one.routing]
    return Share(
        seen=tuple(seen for batch in batches for seen in batch.seen),
        by_draw=torch.cat(named).double().cpu().tolist() if named else [],
        layers=tuple(sorted(next((one.routing for one in found if one.routing), {}))),
        tables_LMX=torch.stack(tables).sum(0).cpu() if tables else None,
        draws=sum(one.draws for one in batches),
        positions=sum(one.positions for one in batches),
        computed=sum(one.computed for one in batches),
        attended=sum(one.attended for one in batches),
        parts=_added(one.parts for one in found),
        auxiliary=_auxiliary(found),
    )


def joined(shares: Sequence[Share]) -> Together:
    """Join the shares of all ranks, in their order.

    Raises:
        StageError: a draw was learned from by other tokens than the ledger is told.
    """
    draws = sorted(
        (
            (rank, seen, (total, int(tokens)))
            for rank, share in enumerate(shares)
            for seen, (total, tokens) in zip(share.seen, share.by_draw, strict=True)
        ),
        key=lambda one: one[1].slot,
    )
    _check_tokens([(seen, tokens) for _, seen, (_, tokens) in draws])
    tables = [share.tables_LMX for share in shares if share.tables_LMX is not None]
    layers = next((share.layers for share in shares if share.layers), ())
    return Together(
        seen=tuple((rank, seen) for rank, seen, _ in draws),
        by_draw=tuple(loss for _, _, loss in draws),
        routing=unstacked(torch.stack(tables).sum(0), layers) if tables else {},
        draws=sum(share.draws for share in shares),
        positions=sum(share.positions for share in shares),
        computed=sum(share.computed for share in shares),
        attended=sum(share.attended for share in shares),
        parts=_means(share.parts for share in shares),
        auxiliary=_sums(share.auxiliary for share in shares),
    )


def _check_tokens(draws: Sequence[tuple[Seen, int]]) -> None:
    """Hold what the network counted of each draw to what was told of it before."""
    wrong = [
        f"{seen.key} (slot {seen.slot}): {seen.tokens} said, {tokens} learned"
        for seen, tokens in draws
        if seen.tokens != tokens
    ]
    if wrong:
        raise StageError(
            f"The ledger would not say what was learned from:{bullets(wrong)}",
            cause="the network counts other loss-bearing tokens than the processor: a defect of "
            "this program.",
            remedy="report it, with these samples and the stage's params.",
        )


def _auxiliary(found: Sequence[StepLoss]) -> dict[str, float]:
    """Return a rank's shares of the losses beside the next token's; they are fetched at once."""
    told = [(name, loss) for one in found for name, loss in one.auxiliary.items()]
    if not told:
        return {}
    values = torch.stack([loss.double() for _, loss in told]).tolist()
    return _sums({name: value} for (name, _), value in zip(told, values, strict=True))


def _sums(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for one in parts:
        for name, value in one.items():
            sums[name] = sums.get(name, 0.0) + value
    return dict(sorted(sums.items()))


def _added(parts: Iterable[Mapping[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    sums: dict[str, tuple[float, float]] = {}
    for one in parts:
        for name, (total, count) in one.items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + total, before[1] + count)
    return sums


def _means(parts: Iterable[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    added = sorted(_added(parts).items())
    return {name: total / count for name, (total, count) in added if count}
