"""What the tables of artifacts say of some samples: who lists, refused, learned or judged them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from uni_moe.registry.holdings import SPAN, Draws, find, holder_of, place_of, unpack
from uni_moe.registry.tables_data import HolderRow, HoldingRow

_MANY = 8  # samples of one block that are looked for one by one
_MOST = 5_000  # values that one statement names
NEVER = Draws(0, 0, 0, 0)


@dataclass(frozen=True)
class Sighting:
    """How many of the samples a table holds, and their draws together."""

    samples: int
    draws: Draws


Told = dict[str, dict[str, Sighting]]  # artifact -> what its table says -> of the samples


def sightings(session: Session, numbers: Sequence[int]) -> Told:
    """Return all tables that hold some of these samples."""
    blocks: dict[int, list[int]] = {}
    for number in numbers:
        blocks.setdefault(number // SPAN, []).append(number % SPAN)
    found: dict[int, list[Sighting]] = {}
    for block, offsets in blocks.items():
        rows = select(HoldingRow.place, HoldingRow.data).where(
            HoldingRow.place.between(place_of(block, 0), place_of(block + 1, 0) - 1)
        )
        for place, data in session.execute(rows):
            one = _looked(data, offsets)
            if one is not None:
                found.setdefault(holder_of(place), []).append(one)
    told: Told = {}
    for number, artifact, what in _holders(session, list(found)):
        told.setdefault(artifact, {})[what] = summed(found[number])
    return told


def with_tables(session: Session, artifacts: Iterable[str]) -> set[tuple[str, str]]:
    """Return which tables of these artifacts the index knows, as (artifact, what)."""
    wanted = list(artifacts)
    found: set[tuple[str, str]] = set()
    for start in range(0, len(wanted), _MOST):
        part = wanted[start : start + _MOST]
        rows = select(HolderRow.artifact, HolderRow.what).where(HolderRow.artifact.in_(part))
        found |= set(session.execute(rows).tuples())
    return found


def summed(parts: Iterable[Sighting]) -> Sighting:
    """Return several sightings as one."""
    every = list(parts)
    drawn = [one.draws for one in every if one.draws.draws]
    draws = NEVER
    if drawn:
        draws = Draws(
            sum(one.draws for one in drawn),
            min(one.first_step for one in drawn),
            max(one.last_step for one in drawn),
            sum(one.tokens for one in drawn),
        )
    return Sighting(sum(one.samples for one in every), draws)


def _looked(data: bytes, offsets: Sequence[int]) -> Sighting | None:
    """Return what a row says of some samples of its block, None where it holds none."""
    if len(offsets) > _MANY:
        held = unpack(0, data)
        rows = np.isin(held.numbers, offsets)
        columns = [column[rows].tolist() for column in held.columns]
        parts = [Draws(*row) for row in zip(*columns, strict=True)]
    else:
        parts = [one for offset in offsets if (one := find(data, offset)) is not None]
    return summed(Sighting(1, one) for one in parts) if parts else None


def _holders(session: Session, numbers: Sequence[int]) -> list[tuple[int, str, str]]:
    rows: list[tuple[int, str, str]] = []
    for start in range(0, len(numbers), _MOST):
        part = numbers[start : start + _MOST]
        about = select(HolderRow.number, HolderRow.artifact, HolderRow.what)
        rows += session.execute(about.where(HolderRow.number.in_(part))).tuples()
    return rows
