"""Which other item's media an item gets, to see whether a model uses them. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from uni_moe.records import Sample


def derangement(items: Sequence[Sample], seed: int) -> dict[str, Sample]:
    """Return, for each item's key, the item of the same task whose media it gets.

    A permutation without fixed points: each item's media go to one other item. All media of an
    item are exchanged together: a spoken question about a picture gets both the picture and the
    voice of one other item. Partners share the task, the kinds of media and, where it has
    items enough, the group: the same kind of question is then asked of foreign media, and a model
    that uses them falls to chance, not below.

    No item gets just the bytes that it has; where a task holds no others, the item is left out.
    Where media recur among items, one part of several may stay, but only when no exchange of
    partners between two items avoids it.
    """
    partner: dict[str, Sample] = {}
    tasks: dict[tuple[str, ...], list[Sample]] = {}
    for item in sorted(items, key=lambda item: item.key):
        tasks.setdefault((item.task, *(ref.kind for ref in item.media)), []).append(item)
    for name, members in sorted(tasks.items()):
        dice = random.Random(f"{seed}/{'/'.join(name)}")
        for pool in _pools(members):
            partner |= _exchanged(pool, dice)
    return partner


def _pools(members: Sequence[Sample]) -> list[list[Sample]]:
    """Return a task's groups; one that cannot exchange within itself joins the next."""
    groups: dict[str, list[Sample]] = {}
    for item in members:
        groups.setdefault(item.group or "", []).append(item)
    pools: list[list[Sample]] = []
    pending: list[Sample] = []
    for _, group in sorted(groups.items()):
        pending = pending + group
        if 2 * _largest(pending) <= len(pending):
            pools.append(pending)
            pending = []
    if pending:
        last = pools.pop() if pools else []
        pools.append(last + pending)
    return pools


def _exchanged(pool: Sequence[Sample], dice: random.Random) -> dict[str, Sample]:
    """Return each item's partner in a pool.

    Items of equal bytes stand side by side, in an order of the dice; everybody looks as many
    places ahead as the largest such row is long, and so past the own row.
    """
    rows: dict[tuple[str, ...], list[Sample]] = {}
    for item in pool:
        rows.setdefault(_hashes(item), []).append(item)
    shuffled = list(rows.values())
    dice.shuffle(shuffled)
    order = [item for row in shuffled for item in row]
    step = _largest(pool)
    ahead = {item.key: order[(place + step) % len(order)] for place, item in enumerate(order)}
    partners = _without_shared_parts(pool, ahead)
    return {
        item.key: partners[item.key]
        for item in pool
        if _hashes(partners[item.key]) != _hashes(item)
    }


def _without_shared_parts(
    pool: Sequence[Sample], partners: Mapping[str, Sample]
) -> dict[str, Sample]:
    """Let two items exchange partners where one shares a medium with its own, and none then does.

    A spoken question about a picture that others ask about too then gets another picture as well.
    """
    parts = {item.key: frozenset(_hashes(item)) for item in pool}
    found = dict(partners)

    def foreign(key: str, other: Sample) -> bool:
        return parts[key].isdisjoint(parts[other.key])

    keys = sorted(found)
    for key in keys:
        if foreign(key, found[key]):
            continue
        for other in keys:
            if foreign(key, found[other]) and foreign(other, found[key]):
                found[key], found[other] = found[other], found[key]
                break
    return found


def _largest(pool: Sequence[Sample]) -> int:
    return max(Counter(map(_hashes, pool)).values())


def _hashes(item: Sample) -> tuple[str, ...]:
    return tuple(ref.sha256 for ref in item.media)
