"""Which other item's media an item gets, to see whether a model uses them. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence

from uni_moe.records import Sample


def derangement(items: Sequence[Sample], seed: int) -> dict[str, Sample]:
    """Return, for each item's key, the item of the same task whose media it gets.

    All media of an item are exchanged together: a spoken question about a picture gets both the
    picture and the question of another item. No item keeps its own media, and none gets the same
    bytes where the task holds others. A task with one item gives nothing to exchange and is left
    out.
    """
    partner: dict[str, Sample] = {}
    tasks: dict[tuple[str, ...], list[Sample]] = {}
    for item in sorted(items, key=lambda item: item.key):
        tasks.setdefault((item.task, *(ref.kind for ref in item.media)), []).append(item)
    for name, members in sorted(tasks.items()):
        order = list(members)
        random.Random(f"{seed}/{name}").shuffle(order)
        count = len(order)
        for place, item in enumerate(order):
            turns = (order[(place + step) % count] for step in range(1, count))
            others = [other for other in turns if _hashes(other) != _hashes(item)]
            if others:
                partner[item.key] = others[0]
            elif count > 1:
                partner[item.key] = order[(place + 1) % count]
    return partner


def _hashes(item: Sample) -> tuple[str, ...]:
    return tuple(ref.sha256 for ref in item.media)
