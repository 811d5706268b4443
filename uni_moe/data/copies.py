"""Which samples repeat the content of a held-out one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from uni_moe.records import canonical_json

# Who keeps the content: the judged sample before the one that chooses, both before training.
_RANK = {"test": 0, "validation": 1}


def copies(rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """Return for each row the key of the held-out row that has the same content and outranks it.

    Content is the conversation, the media's bytes and which part of them is used. Test outranks
    validation, which outranks training; inside a held-out split the smaller key does. Repeats
    inside training are left alone: they weigh, they do not leak. Rows that ingest refused count
    for nothing.
    """
    whole = [row for row in rows if row["problem_codes"] is None]
    held_out = {row["id"] for row in whole if row["split"] in _RANK}
    keeper: dict[str, tuple[int, str]] = {}
    for row in whole:
        if row["split"] in _RANK:
            place = (_RANK[row["split"]], row["key"])
            content = _content(row)
            keeper[content] = min(place, keeper.get(content, place))
    return [_keeper_of(row, keeper) if row["id"] in held_out else None for row in rows]


def _keeper_of(row: Mapping[str, Any], keeper: Mapping[str, tuple[int, str]]) -> str | None:
    if row["problem_codes"] is not None:
        return None
    _, key = keeper.get(_content(row), (0, row["key"]))
    return None if key == row["key"] else key


def _content(row: Mapping[str, Any]) -> str:
    """Return what makes two rows one: the id, and which part of the media is used."""
    used = [
        {name: ref.get(name) for name in ("sha256", "frames", "gap_ms", "track")}
        for ref in json.loads(row["media"] or "[]")
    ]
    return canonical_json([row["id"], used])
