"""Which samples a question means: by keys or ids, by whose they are, by source, by licence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from uni_moe.errors import UnknownError, bullets
from uni_moe.registry.tables_data import SampleRow

_LEAST_OF_AN_ID = 8  # letters, so that a short word means no id
_SHOWN = 10
_MOST = 500  # values that one statement names


@dataclass(frozen=True)
class Asked:
    """The samples that any of these names; `samples` holds keys or beginnings of ids."""

    samples: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The question in words."""
        parts = [
            *self.samples,
            *(f"subject {one}" for one in self.subjects),
            *(f"source {one}" for one in self.sources),
            *(f"license {one}" for one in self.licenses),
        ]
        return ", ".join(parts)


def meant(session: Session, asked: Asked) -> list[int]:
    """Return the numbers of the samples that are meant, in order.

    A sample of which a ledger alone tells has no subject and no licence: it is meant where a
    manifest knows its key under them.

    Raises:
        UnknownError: something names no sample, or is the beginning of several ids; all of them.
    """
    columns = (
        (asked.subjects, SampleRow.subject, "subject"),
        (asked.sources, SampleRow.source, "source"),
        (asked.licenses, SampleRow.license, "license"),
    )
    problems: list[str] = []
    found: set[int] = set()
    for name in asked.samples:
        found |= _sample(session, name, problems)
    for names, column, word in columns:
        for name in names:
            numbers = _where(session, column == name)
            problems += [] if numbers else [f"no sample has the {word} {name!r}"]
            found |= numbers
    if problems:
        raise UnknownError(
            f"No manifest or ledger that is known here tells of what was asked:{bullets(problems)}",
            cause="keys are written as source/name, ids with at least eight letters; or the "
            "artifact that lists it was never registered and is here no more.",
            remedy="look into artifacts/samples/*/manifest.parquet, or run `uni-moe index` first.",
        )
    return sorted(found | _told_by_ledgers(session, found))


def known_keys(session: Session, keys: Sequence[str]) -> list[int]:
    """Return the numbers of the samples that have these keys, as far as they are known."""
    found: set[int] = set()
    for start in range(0, len(keys), _MOST):
        found |= _where(session, SampleRow.key.in_(keys[start : start + _MOST]))
    return sorted(found | _told_by_ledgers(session, found))


def _sample(session: Session, name: str, problems: list[str]) -> set[int]:
    numbers = _where(session, SampleRow.key == name)
    if numbers:
        return numbers
    ids: Sequence[str | None] = ()
    if len(name) >= _LEAST_OF_AN_ID:
        begins = SampleRow.id.between(name, f"{name}g")  # hex letters end with f
        ids = session.scalars(select(SampleRow.id).where(begins).distinct().limit(_SHOWN)).all()
    if len(ids) == 1:
        return _where(session, SampleRow.id == ids[0])
    several = ", ".join(str(one)[:16] for one in ids)
    problems.append(f"{name!r} begins several ids: {several}" if ids else f"no sample {name!r}")
    return set()


def _where(session: Session, condition: ColumnElement[bool]) -> set[int]:
    return set(session.scalars(select(SampleRow.number).where(condition)))


def _told_by_ledgers(session: Session, numbers: set[int]) -> set[int]:
    """Return what ledgers alone tell of, under the keys of these samples."""
    found: set[int] = set()
    wanted = sorted(numbers)
    for start in range(0, len(wanted), _MOST):
        part = wanted[start : start + _MOST]
        keys = select(SampleRow.key).where(SampleRow.number.in_(part))
        found |= _where(session, SampleRow.id.is_(None) & or_(SampleRow.key.in_(keys)))
    return found
