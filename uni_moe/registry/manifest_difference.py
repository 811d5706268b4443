"""Which samples two manifests have, and which one of them has alone, or otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.orm import Session

from uni_moe.registry.samples import about, held, without
from uni_moe.registry.sightings import with_tables
from uni_moe.registry.tables_data import SampleRow

_SHOWN = 5


@dataclass(frozen=True)
class DataChange:
    """Samples that were accepted before or after alone, counted by source.

    `changed` are samples whose content, licence, subject or split is another one under the same
    key. `keys` names the first few of each.
    """

    added: Mapping[str, int]
    removed: Mapping[str, int]
    changed: Mapping[str, int]
    keys: Mapping[str, tuple[str, ...]]

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.added or self.removed or self.changed)

    def to_json(self) -> dict[str, Any]:
        """Return the change as a JSON object."""
        return asdict(self)

    @property
    def text(self) -> str:
        """The change in words."""
        said = []
        for word, counts in vars(self).items():
            if word != "keys" and counts:
                each = ", ".join(f"{count} of {source}" for source, count in counts.items())
                first = ", ".join(self.keys[word])
                more = ", …" if sum(counts.values()) > len(self.keys[word]) else ""
                said.append(f"{word}: {each} ({first}{more})")
        return "; ".join(said) or "the same samples"


def data_change(session: Session, before: str | None, after: str | None) -> DataChange | None:
    """Compare what two validated artifacts accepted; None where one's table is not known.

    An artifact that is None accepted nothing.
    """
    given = {one for one in (before, after) if one is not None}
    known = with_tables(session, given)
    if any((one, "accepted") not in known for one in given):
        return None
    numbers = [
        held(session, one or "", "accepted").numbers  # of nobody nothing is known
        for one in (before, after)
    ]
    gone = list(about(session, without(numbers[0], numbers[1]).tolist()))
    come = list(about(session, without(numbers[1], numbers[0]).tolist()))
    both = {row.key for row in gone} & {row.key for row in come}
    parts = {
        "added": [row for row in come if row.key not in both],
        "removed": [row for row in gone if row.key not in both],
        "changed": [row for row in come if row.key in both],
    }
    counts = {word: _by_source(rows) for word, rows in parts.items()}
    keys = {word: tuple(sorted(row.key for row in rows)[:_SHOWN]) for word, rows in parts.items()}
    return DataChange(**counts, keys=keys)


def _by_source(rows: Iterable[SampleRow]) -> dict[str, int]:
    return dict(sorted(Counter(row.source for row in rows).items()))
