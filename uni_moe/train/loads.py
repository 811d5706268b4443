"""How large the micro-batches of a phase are, from its own plan of draws, rows and ranks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from uni_moe.config import Packing, Phase
from uni_moe.data.packing import Batch, plan
from uni_moe.model.segments import groups_of
from uni_moe.train.activations import Load
from uni_moe.train.compiled import Shapes

# What a conversation's text is taken for as long as there is no corpus to look at.
ASSUMED_POSITIONS, ASSUMED_LABELS = 128, 64


@dataclass(frozen=True)
class Size:
    """A conversation: its positions, those that bear loss, and its media by kind."""

    positions: int
    labels: int
    media: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Loads:
    """The largest micro-batch of some steps, and what a rank computes in one of them on average.

    `batches` counts the micro-batches of a step on each rank, at most; `shapes` the different sizes
    that one rank meets, at most.
    """

    largest: Load
    batches: int
    draws_per_step: float
    positions_per_step: float
    labels_per_step: float
    shapes: Shapes


def loads_of(
    steps: Sequence[Sequence[Size]], packing: Packing | None, *, ranks: int = 1, frames: int = 1
) -> Loads:
    """Lay out the draws of some steps as a training does, and return what comes of it.

    Labels and media of the largest micro-batch are the most of any.

    Args:
        steps: the draws of each step.
        packing: how they lie in rows.
        ranks: how many processes share a step.
        frames: of a film.
    """
    by_rank: list[list[Load]] = [[] for _ in range(ranks)]
    most_batches = 1
    for draws in steps:
        planned = plan(
            [one.positions for one in draws],
            row_positions=packing.row_positions if packing else None,
            rows=packing.rows if packing else None,
            ranks=ranks,
        )
        most_batches = max(most_batches, *(len(batches) for batches in planned))
        is_packed = packing is not None and packing.row_positions is not None
        for own, batches in zip(by_rank, planned, strict=True):
            own += [
                _load(batch, draws, is_packed=is_packed, frames=frames)
                for batch in batches
                if batch
            ]
    found = [load for own in by_rank for load in own]
    drawn = [one for draws in steps for one in draws]
    count = max(1, len(steps))
    return Loads(
        _largest(found, frames),
        most_batches,
        len(drawn) / count,
        sum(load.positions for load in found) / count,
        sum(one.labels for one in drawn) / count,
        _most([_shapes(own) for own in by_rank]),
    )


def assumed(phase: Phase, rows: Mapping[str, int]) -> list[Size]:
    """Return a step's draws where nothing is known of the conversations.

    Args:
        phase: its blend and the size of its steps.
        rows: modality -> the positions that its medium takes.
    """
    weights = {modality: phase.blend[modality] for modality in sorted(phase.blend)}
    each = {
        modality: Size(
            rows.get(modality, 0) + ASSUMED_POSITIONS,
            ASSUMED_LABELS,
            {modality: 1} if rows.get(modality) else {},
        )
        for modality in weights
    }
    mean = sum(each[m].positions * w for m, w in weights.items()) / sum(weights.values())
    count = phase.batch_size or max(1, int((phase.batch_positions or mean) / mean))
    turns = {m: round(count * w / sum(weights.values())) for m, w in weights.items()}
    return [each[modality] for modality, times in turns.items() for _ in range(max(1, times))]


def _load(batch: Batch, draws: Sequence[Size], *, is_packed: bool, frames: int) -> Load:
    own = [draws[at] for row in batch for at in row.draws]
    return Load(
        rows=len(batch),
        length=max(row.positions for row in batch),
        labels=sum(one.labels for one in own),
        spans=groups_of(one.positions for one in own) if is_packed else (),
        media=_summed(one.media for one in own),
        frames=frames,
    )


def _largest(loads: Sequence[Load], frames: int) -> Load:
    if not loads:
        return Load(1, 1, 1, frames=frames)
    most = max(loads, key=lambda load: (load.positions, load.pairs))
    media: dict[str, int] = {}
    for load in loads:
        for kind, count in load.media.items():
            media[kind] = max(media.get(kind, 0), count)
    labels = max(load.labels for load in loads)
    return Load(most.rows, most.length, labels, most.spans, media, frames)


def _shapes(loads: Sequence[Load]) -> Shapes:
    kinds = {kind for load in loads for kind in load.media}
    return Shapes(
        positions=len({load.positions for load in loads}),
        labels=len({load.labels for load in loads}),
        groups=len({group for load in loads for group in load.groups}),
        media={kind: len({load.media.get(kind, 0) for load in loads}) for kind in kinds},
        visited=max((load.positions for load in loads), default=0),
        batches=len(loads),
    )


def _most(every: Sequence[Shapes]) -> Shapes:
    """Return the most of any rank, each number by itself."""
    kinds = {kind for one in every for kind in one.media}
    return Shapes(
        positions=max(one.positions for one in every),
        labels=max(one.labels for one in every),
        groups=max(one.groups for one in every),
        media={kind: max(one.media.get(kind, 0) for one in every) for kind in kinds},
        visited=max(one.visited for one in every),
        batches=max(one.batches for one in every),
    )


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in counts:
        for kind, count in one.items():
            found[kind] = found.get(kind, 0) + count
    return found
