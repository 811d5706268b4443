"""Which samples repeat the content of a held-out one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from uni_moe.data.manifest import media_of
from uni_moe.records import Turn, canonical_json

# Who keeps the content: the judged sample before the one that chooses, both before training.
_RANK = {"test": 0, "validation": 1}


def copies(rows: Sequence[Mapping[str, Any]], refused: Sequence[bool]) -> list[str | None]:
    """Return for each row the key of the held-out row whose content it has and that outranks it.

    Content is the media's bytes, which part of them is used, and the conversation. A training
    conversation of many rounds copies a held-out question and answer when one of its rounds is
    that, whatever stands around it. Test outranks validation, which outranks training; inside a
    held-out split the smaller key does. Repeats inside training are left alone: they weigh, they
    do not leak. Rows that are refused for another reason count for nothing: what is not asked
    keeps nobody out of training.
    """
    contents = [[] if out else _contents(row) for row, out in zip(rows, refused, strict=True)]
    keeper: dict[str, tuple[int, str]] = {}
    for row, found in zip(rows, contents, strict=True):
        if found and row["split"] in _RANK:
            place = (_RANK[row["split"]], row["key"])
            keeper[found[-1]] = min(place, keeper.get(found[-1], place))
    return [
        _keeper_of(row["key"], found, keeper) for row, found in zip(rows, contents, strict=True)
    ]


def _keeper_of(
    key: str, contents: Sequence[str], keeper: Mapping[str, tuple[int, str]]
) -> str | None:
    places = [keeper[content] for content in contents if content in keeper]
    if not places or min(places)[1] == key:
        return None
    return min(places)[1]


def _contents(row: Mapping[str, Any]) -> list[str]:
    """Return what a row tells: each of its rounds, and last the whole conversation.

    Letters' size, outer spaces and slots make no difference.
    """
    used = [ref.content for ref in media_of(row)]
    turns = [Turn.from_message(message) for message in json.loads(row["conversation"] or "[]")]
    said = [[turn.role, " ".join(turn.text.lower().split())] for turn in turns]
    rounds = [pair for pair in itertools.pairwise(said) if pair[1][0] == "assistant"]
    return [canonical_json([used, list(told)]) for told in (*rounds, said)]
