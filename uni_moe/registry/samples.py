"""Samples in the index: their numbers, what manifests say of them, who holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from uni_moe.records import canonical_json
from uni_moe.registry.holdings import (
    SPAN,
    Holding,
    Numbers,
    block_of,
    listing,
    place_of,
    unpack,
    unpack_blocks,
)
from uni_moe.registry.tables_data import HolderRow, HoldingRow, SampleRow

Manifest = Mapping[str, Sequence[Any]]  # column -> values, of all samples in one order
_ABOUT = ("key", "id", "source", "license", "subject", "modality", "split")
_MOST = 500  # values that one statement names


def numbers_of(session: Session, manifest: Manifest) -> list[int]:
    """Return the numbers of a manifest's samples, in its order; new ones get the next."""
    rows = [dict(zip(_ABOUT, row, strict=True)) for row in zip(*_ordered(manifest), strict=True)]
    marks = [_mark(row) for row in rows]
    known = _known(session, marks)
    new = {mark: row for mark, row in zip(marks, rows, strict=True) if mark not in known}
    known |= _added(session, new)
    return [known[mark] for mark in marks]


def unknown_samples(session: Session, told: Mapping[str, tuple[str, str]]) -> dict[str, int]:
    """Return key -> number of samples that no manifest explains, by their source and modality."""
    nothing = dict.fromkeys(_ABOUT)
    rows = {
        key: nothing | {"key": key, "source": source, "modality": modality}
        for key, (source, modality) in told.items()
    }
    marks = {key: _mark(row) for key, row in rows.items()}
    known = _known(session, marks.values())
    new = {marks[key]: row for key, row in rows.items() if marks[key] not in known}
    known |= _added(session, new)
    return {key: known[mark] for key, mark in marks.items()}


def members(session: Session, judged: Iterable[str]) -> dict[str, int]:
    """Return key -> number of the samples that these artifacts accepted."""
    found: dict[str, int] = {}
    for artifact in judged:
        numbers = held(session, artifact, "accepted").numbers
        known = set(numbers.tolist())
        for first, last in _runs(sorted({int(one) for one in np.unique(numbers // SPAN)})):
            about = select(SampleRow.key, SampleRow.number).where(
                SampleRow.number.between(first * SPAN, last * SPAN + SPAN - 1)
            )
            found |= {key: number for key, number in session.execute(about) if number in known}
    return found


def held(session: Session, artifact: str, what: str) -> Holding:
    """Return what an artifact's table says; nothing where it is not in the index."""
    row = session.scalars(
        select(HolderRow).where(HolderRow.artifact == artifact, HolderRow.what == what)
    ).first()
    if row is None or not row.samples:
        return listing(np.zeros(0, np.int64))
    parts: list[Holding] = []
    places = [place_of(block, row.number) for block in unpack_blocks(row.blocks)]
    for start in range(0, len(places), _MOST):
        asked = places[start : start + _MOST]
        found = session.execute(
            select(HoldingRow.place, HoldingRow.data)
            .where(HoldingRow.place.in_(asked))
            .order_by(HoldingRow.place)
        )
        parts += [unpack(block_of(place), data) for place, data in found]
    return Holding(
        np.concatenate([part.numbers for part in parts]),
        tuple(np.concatenate(columns) for columns in zip(*(p.columns for p in parts), strict=True)),
    )


def about(session: Session, numbers: Iterable[int]) -> Iterator[SampleRow]:
    """Give what is known of samples, in the order of their numbers."""
    wanted = sorted(numbers)
    for start in range(0, len(wanted), _MOST):
        asked = wanted[start : start + _MOST]
        yield from session.scalars(
            select(SampleRow).where(SampleRow.number.in_(asked)).order_by(SampleRow.number)
        )


def without(one: Numbers, other: Numbers) -> Numbers:
    """Return the numbers of one that are not in the other."""
    found: Numbers = np.setdiff1d(one, other, assume_unique=True)
    return found


def _ordered(manifest: Manifest) -> list[Sequence[Any]]:
    return [manifest[name] for name in _ABOUT]


def _mark(row: Mapping[str, Any]) -> bytes:
    text = canonical_json([row[name] for name in _ABOUT])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def _known(session: Session, marks: Iterable[bytes]) -> dict[bytes, int]:
    wanted = list(marks)
    found: dict[bytes, int] = {}
    for start in range(0, len(wanted), _MOST):
        asked = wanted[start : start + _MOST]
        rows = select(SampleRow.mark, SampleRow.number).where(SampleRow.mark.in_(asked))
        found |= dict(session.execute(rows).tuples().all())
    return found


def _added(session: Session, new: Mapping[bytes, Mapping[str, Any]]) -> dict[bytes, int]:
    """Number new samples. Many at once begin a block, so that neighbours are of one manifest."""
    if not new:
        return {}
    first = (session.scalar(select(func.max(SampleRow.number))) or 0) + 1
    if len(new) >= SPAN:
        first = -(-first // SPAN) * SPAN
    numbers = {mark: first + place for place, mark in enumerate(new)}
    rows = [{**row, "mark": mark, "number": numbers[mark]} for mark, row in new.items()]
    session.execute(insert(SampleRow), rows)
    return numbers


def _runs(blocks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Give first and last of neighbouring blocks."""
    start = 0
    for place, block in enumerate(blocks):
        if place + 1 == len(blocks) or blocks[place + 1] != block + 1:
            yield blocks[start], block
            start = place + 1
