"""Where a ledger first differs from what it should say, and how."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

from uni_moe.data.exposures import LedgerEntry

Kind = Literal["deleted", "added", "reordered", "changed"]


@dataclass(frozen=True)
class Difference:
    """The first entry that differs; `index` counts from 0, an absent entry is None."""

    kind: Kind
    index: int
    expected: LedgerEntry | None
    found: LedgerEntry | None

    def text(self) -> str:
        """Return the difference in words."""
        if self.kind == "changed":
            assert self.expected is not None
            assert self.found is not None
            fields = ", ".join(
                f"{name} {found!r} instead of {expected!r}"
                for name, found, expected in zip(
                    LedgerEntry._fields, self.found, self.expected, strict=True
                )
                if found != expected and name != "rank"
            )
            return f"entry {self.index} ({_place(self.expected)}) says {fields}"
        one = self.found if self.kind == "added" else self.expected
        assert one is not None
        said = {
            "deleted": "is missing",
            "added": "does not belong there",
            "reordered": "stands at another place",
        }
        return f"entry {self.index} ({_place(one)}, {one.key}) {said[self.kind]}"

    def to_json(self) -> dict[str, Any]:
        """Return the difference as a JSON object."""
        return {
            "kind": self.kind,
            "index": self.index,
            "expected": None if self.expected is None else self.expected._asdict(),
            "found": None if self.found is None else self.found._asdict(),
            "text": self.text(),
        }


def first_difference(
    expected: Iterable[LedgerEntry], found: Iterable[LedgerEntry]
) -> Difference | None:
    """Compare entry by entry, the rank aside; both are read to their ends."""
    wanted, there = iter(expected), iter(found)
    for index, (one, other) in enumerate(zip_longest(wanted, there)):
        if _content(one) != _content(other):
            later = False
            for entry in there:
                later = later or _content(entry) == _content(one)
            for _ in wanted:
                pass
            return Difference(_kind(one, other, later=later), index, one, other)
    return None


def _kind(expected: LedgerEntry | None, found: LedgerEntry | None, *, later: bool) -> Kind:
    """Say what was done. Entries stand by step and slot, so a place says who is missing."""
    if expected is None or (found is not None and _order(found) < _order(expected)):
        return "added"
    if found is None or _order(found) > _order(expected):
        return "reordered" if later else "deleted"
    return "changed"


def _order(entry: LedgerEntry) -> tuple[int, int]:
    return entry.step, entry.slot


def _content(entry: LedgerEntry | None) -> tuple[object, ...] | None:
    return None if entry is None else (entry.step, *entry[2:])


def _place(entry: LedgerEntry) -> str:
    return f"step {entry.step}, slot {entry.slot}"
