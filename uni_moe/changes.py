"""What differs between two nested settings: leaves by their full keys, from what to what. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

ABSENT = object()


class Change(NamedTuple):
    """One leaf that differs; ABSENT stands on the side that lacks it."""

    key: str
    before: Any
    after: Any


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return the leaves that differ, by key; lists of sections count by place."""
    old, new = (dict(leaves(settings)) for settings in (before, after))
    return [
        Change(key, old.get(key, ABSENT), new.get(key, ABSENT))
        for key in sorted({*old, *new})
        if old.get(key, ABSENT) != new.get(key, ABSENT)
    ]


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give every leaf with its full key, such as `sources.0.seed`."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
            named = {str(place): one for place, one in enumerate(value)}
            yield from leaves(named, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value
