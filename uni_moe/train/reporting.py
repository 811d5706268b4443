"""From what every rank computed of a step to one report of it."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from uni_moe.errors import StageError, bullets
from uni_moe.model.routing_sums import RoutingSums, stacked, unstacked
from uni_moe.train.batches import MicroBatch, Seen, StepLoss
from uni_moe.train.world import gathered

_STATUS = Path("/proc/self/status")
_KIB = re.compile(rb"^(VmHWM|VmRSS):\s+(\d+) kB$", re.MULTILINE)


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
    waited_s: float
    encoded_s: float
    memory: dict[str, float]


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
    waited_s: float = 0.0
    encoded_s: float = 0.0
    memory: dict[str, float] = field(default_factory=dict)


def together(
    batches: Sequence[MicroBatch], found: Sequence[StepLoss], *, fetched_s: float = 0.0
) -> Together:
    """Bring a step's shares together on the first rank. All ranks call it.

    Args:
        batches: this rank's micro-batches.
        found: what was computed of each.
        fetched_s: how long the micro-batches took to be made, encoders at work included.
    """
    return joined(gathered(share_of(batches, found, fetched_s=fetched_s)))


def share_of(
    batches: Sequence[MicroBatch], found: Sequence[StepLoss], *, fetched_s: float = 0.0
) -> Share:
    """Return a rank's share; the device is waited for once for draws, routing and the rest."""
    encoded_s = sum(one.encoded_s for one in batches)
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
        waited_s=max(0.0, fetched_s - encoded_s),
        encoded_s=encoded_s,
        memory=memory_held(),
    )


def memory_held() -> dict[str, float]:
    """Return the bytes that this process holds now and held at most, and its accelerator's.

    Linux tells a process's own peak in its status alone: that of `getrusage` is also its starter's,
    as it was when it started us.
    """
    if _STATUS.is_file():
        told = dict(_KIB.findall(_STATUS.read_bytes()))
        found = {
            "memory/peak_bytes": int(told[b"VmHWM"]) * 1024,
            "memory/bytes": int(told[b"VmRSS"]) * 1024,
        }
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        found = {"memory/peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        found["memory/accelerator_bytes"] = torch.cuda.memory_allocated()
        found["memory/accelerator_peak_bytes"] = torch.cuda.max_memory_allocated()
    return {name: float(value) for name, value in found.items()}


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
        waited_s=max((share.waited_s for share in shares), default=0.0),
        encoded_s=max((share.encoded_s for share in shares), default=0.0),
        memory=_most(share.memory for share in shares),
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


def _most(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    most: dict[str, float] = {}
    for one in parts:
        for name, value in one.items():
            most[name] = max(most.get(name, 0.0), value)
    return most


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
