"""Which draws of a step stand in which row, and which process computes it when. Pure.

A row takes several conversations one behind the other, up to a budget of positions; without a
budget each has a row of its own. A row is only as long as what it holds, and rows that are computed
together are filled up to the longest of them: that filling is all that is computed in vain, but for
attention's own (model.segments).
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Draws, by their place in the step, that stand in one row, and the positions they take."""

    draws: tuple[int, ...] = ()
    positions: int = 0

    def with_draw(self, draw: int, positions: int) -> Row:
        """Return the row with one more draw."""
        return Row((*self.draws, draw), self.positions + positions)


Batch = tuple[Row, ...]  # rows computed at once; none where a rank has nothing left to do
Plan = tuple[tuple[Batch, ...], ...]  # by rank, equally many for each


def plan(
    lengths: Sequence[int],
    *,
    row_positions: int | None = None,
    rows: int | None = None,
    ranks: int = 1,
) -> Plan:
    """Spread a step's draws over ranks, micro-batches and rows.

    Ranks get equally many micro-batches and nearly the same number of positions.

    Args:
        lengths: the positions of every draw; none is above row_positions.
        row_positions: what a row takes at most; None gives every draw a row of its own.
        rows: how many rows are computed at once; None is all.
        ranks: how many processes share the step.
    """
    if row_positions is None:
        filled = [Row((draw,), positions) for draw, positions in enumerate(lengths)]
    else:
        filled = _fill(lengths, row_positions, ranks)
    shares = _share(filled, ranks)
    size = rows or max(1, *map(len, shares))
    count = max(1, *(-(-len(share) // size) for share in shares))
    return tuple(
        tuple(tuple(_in_order(share[at * size : (at + 1) * size])) for at in range(count))
        for share in shares
    )


def used(batches: Iterable[Batch]) -> tuple[int, int]:
    """Return the positions that hold something, and those that are computed."""
    kept = computed = 0
    for batch in batches:
        kept += sum(row.positions for row in batch)
        computed += len(batch) * max((row.positions for row in batch), default=0)
    return kept, computed


def _fill(lengths: Sequence[int], budget: int, ranks: int) -> list[Row]:
    """Put draws in as few rows as will do, a multiple of the ranks.

    Rows are as level as they can be, so no rank waits; where that does not fit, they are filled
    tightly, the longest draws first.
    """
    assert all(length <= budget for length in lengths), "a draw is longer than a row"
    falling = sorted(range(len(lengths)), key=lambda draw: (-lengths[draw], draw))
    count = ranks * max(1, -(-sum(lengths) // (budget * ranks)))
    while True:
        found = _level(falling, lengths, budget, count) or _tight(falling, lengths, budget, count)
        if found:
            return found
        count += ranks


def _level(
    falling: Sequence[int], lengths: Sequence[int], budget: int, count: int
) -> list[Row] | None:
    """Put each draw in the row that holds least; None where one finds no room."""
    rows = [Row()] * count
    heap = [(0, at) for at in range(count)]
    for draw in falling:
        held, at = heap[0]
        if held + lengths[draw] > budget:
            return None
        rows[at] = rows[at].with_draw(draw, lengths[draw])
        heapq.heapreplace(heap, (rows[at].positions, at))
    return rows


def _tight(
    falling: Sequence[int], lengths: Sequence[int], budget: int, count: int
) -> list[Row] | None:
    """Put each draw in the row that it leaves least room in; None where one finds no room."""
    rows = [Row()] * count
    room = [(budget, at) for at in range(count)]  # rising
    for draw in falling:
        chosen = bisect.bisect_left(room, (lengths[draw], -1))
        if chosen == count:
            return None
        left, at = room.pop(chosen)
        rows[at] = rows[at].with_draw(draw, lengths[draw])
        bisect.insort(room, (left - lengths[draw], at))
    return rows


def _share(rows: Sequence[Row], ranks: int) -> list[list[Row]]:
    """Give ranks equally many rows, long ones first, each to the rank with the fewest positions."""
    most = -(-len(rows) // ranks)
    shares: list[list[Row]] = [[] for _ in range(ranks)]
    for row in sorted(rows, key=lambda row: (-row.positions, row.draws)):
        if row.draws:
            open_ranks = [rank for rank in range(ranks) if len(shares[rank]) < most]
            fewest = min(open_ranks, key=lambda rank: sum(one.positions for one in shares[rank]))
            shares[fewest].append(row)
    return shares


def _in_order(rows: Iterable[Row]) -> Iterator[Row]:
    """Give rows by their first draw, and the draws of each as the step has them."""
    for row in sorted(rows, key=lambda row: min(row.draws)):
        yield Row(tuple(sorted(row.draws)), row.positions)
