"""Imports what tells of data into the index: manifests, ledgers, answers, contract reports.

A table is imported once, by its artifact's id, and only if it is what the card says. Manifests come
before ledgers, which name samples by keys that manifests explain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout, read_json
from uni_moe.errors import LineageError
from uni_moe.records import Card, ContractReport
from uni_moe.registry.cards import REPORT, Cards, json_lines
from uni_moe.registry.coded import coded, read_coded
from uni_moe.registry.holdings import (
    Holding,
    gathered,
    listing,
    pack,
    pack_blocks,
    place_of,
    sample_key,
)
from uni_moe.registry.samples import Manifest, members, numbers_of, unknown_samples
from uni_moe.registry.seen import CONTRACT, TABLES, files_told, places, whole_file_of
from uni_moe.registry.tables_data import ContractRow, HolderRow, HoldingRow, RuleRow, SourceRow

_COLUMNS = ("key", "id", "source", "license", "subject", "modality", "split")
_ORDER = list(TABLES)


def import_data(session: Session, layout: Layout, cards: Cards) -> None:
    """Import the tables of these cards' artifacts that are not in the index yet.

    Raises:
        LineageError: a file is what its card says, and cannot be read.
    """
    waiting = _waiting(session, cards)
    if not waiting:
        return
    where = places(layout)
    keys = _Keys(session, cards)
    for card_id, what in sorted(waiting, key=lambda one: (_order(one[1]), one[0])):
        card = cards[card_id][1]
        if card_id not in where:
            continue
        file = whole_file_of(card, where[card_id], TABLES.get(what, REPORT))
        if file is None:
            continue
        if what == CONTRACT:
            _import_contract(session, card_id, file)
        else:
            _import_table(session, keys, card_id, what, file)
    session.flush()


def _order(what: str) -> int:
    return _ORDER.index(what) if what in _ORDER else len(_ORDER)


def _waiting(session: Session, cards: Cards) -> list[tuple[str, str]]:
    """Return what is not imported yet, as (artifact, what)."""
    known = {tuple(row) for row in session.execute(select(HolderRow.artifact, HolderRow.what))}
    known |= {(report, CONTRACT) for report in session.scalars(select(ContractRow.report))}
    names = {file: what for what, file in TABLES.items()}
    every = (
        (card_id, names.get(file, CONTRACT))
        for card_id, (_, card) in cards.items()
        for file in files_told(card)
    )
    return [one for one in every if one not in known]


def import_sources(session: Session, cards: Cards) -> None:
    """Import which sources the samples of these cards were read from."""
    done = set(session.scalars(select(SourceRow.artifact).distinct()))
    for card_id, (_, card) in cards.items():
        if card.kind == "samples" and card_id not in done:
            listed = card.results.get("sources", {})
            for told in card.params.get("sources", []):
                name = told["name"]
                row = SourceRow(artifact=card_id, name=name, kind=told["kind"], params=dict(told))
                row.listed = listed.get(name, 0)
                session.add(row)
    session.flush()


def _import_contract(session: Session, card_id: str, file: Path) -> None:
    try:
        report = ContractReport.from_json(read_json(file))
    except (ValueError, TypeError, KeyError) as error:
        raise _unreadable(file, error) from error
    session.add(
        ContractRow(
            report=card_id,
            name=report.contract,
            version=report.version,
            sha256=report.contract_sha256,
            kept=report.kept,
            breaches=list(report.breaches),
        )
    )
    session.flush()
    names = [column.name for column in RuleRow.__table__.columns if column.name != "report"]
    for rule in report.rules:
        told = {name: getattr(rule, name) for name in names}
        session.add(RuleRow(report=card_id, **told))


class _Keys:
    """Finds the samples that an artifact's conversations were made of, by their keys."""

    def __init__(self, session: Session, cards: Cards) -> None:
        self._session, self._cards = session, cards
        self._known: dict[tuple[str, ...], dict[str, int]] = {}

    def of(self, card_id: str, told: Mapping[str, tuple[str, str]]) -> list[int]:
        """Return the numbers of the samples of these conversations, in their order.

        Args:
            card_id: whose ledger or answers they stand in.
            told: conversation -> its source and modality.
        """
        judged = self._judged(card_id)
        if judged not in self._known:
            self._known = {judged: members(self._session, judged)}  # one is enough in memory
        known = self._known[judged]
        keys = {key: key if key in known else sample_key(key) for key in told}
        strange = {keys[key]: about for key, about in told.items() if keys[key] not in known}
        known |= unknown_samples(self._session, strange)
        return [known[keys[key]] for key in told]

    def _judged(self, card_id: str) -> tuple[str, ...]:
        """Return the artifacts that say which samples an artifact's corpora accepted."""
        parents = [self._card(one) for one in self._card(card_id).parents.values()]
        corpora = [card for card in parents if card is not None and card.kind == "corpus"]
        above = {one for card in corpora for one in card.parents.values()}
        return tuple(sorted(one for one in above if self._card(one).kind == "validated"))

    def _card(self, card_id: str) -> Card:
        nothing = Card("", "", {}, {}, "", {})
        return self._cards[card_id][1] if card_id in self._cards else nothing


def _import_table(session: Session, keys: _Keys, card_id: str, what: str, file: Path) -> None:
    try:
        if what in ("accepted", "refused"):
            manifest: Manifest = _columns(file, _COLUMNS)
            holding = listing(np.array(numbers_of(session, manifest), np.int64))
        elif what == "learned":
            holding = _ledger(keys, card_id, file)
        else:
            holding = _answers(keys, card_id, file)
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are the first two
        raise _unreadable(file, error) from error
    write_holding(session, card_id, what, holding)


def write_holding(session: Session, card_id: str, what: str, holding: Holding) -> None:
    """Write an artifact's table of samples."""
    number = (session.scalar(select(func.max(HolderRow.number))) or 0) + 1
    rows = [(block, data) for block, data in pack(holding)]
    session.add(
        HolderRow(
            number=number,
            artifact=card_id,
            what=what,
            samples=len(holding.numbers),
            draws=int(holding.columns[0].sum()),
            blocks=pack_blocks([block for block, _ in rows]),
        )
    )
    session.flush()
    if rows:
        told = [{"place": place_of(block, number), "data": data} for block, data in rows]
        session.execute(insert(HoldingRow), told)


def _ledger(keys: _Keys, card_id: str, file: Path) -> Holding:
    """Read a ledger: what it says of each conversation, summed over those of one sample."""
    texts = ["key", "source", "modality"]
    read = read_coded(file, [*texts, "step", "tokens"], texts)
    if not read.num_rows:
        return listing(np.zeros(0, np.int64))
    place, names = coded(read, "key")
    about = [coded(read, name) for name in ("source", "modality")]
    _, first = np.unique(place, return_index=True)
    told = {
        names[key]: (about[0][1][source], about[1][1][modality])
        for key, source, modality in zip(
            place[first].tolist(),
            about[0][0][first].tolist(),
            about[1][0][first].tolist(),
            strict=True,
        )
    }
    by_name = dict(zip(told, keys.of(card_id, told), strict=True))
    number = np.array([by_name.get(name, -1) for name in names], np.int64)
    return gathered(number[place], _numbers(read, "step"), _numbers(read, "tokens"))


def _answers(keys: _Keys, card_id: str, file: Path) -> Holding:
    """Read which samples a report judged; their sources stand in their keys."""
    told = {row["key"]: (row["key"].partition("/")[0], row["modality"]) for row in json_lines(file)}
    return listing(np.array(keys.of(card_id, told), np.int64))


def _columns(file: Path, names: tuple[str, ...]) -> Manifest:
    with pq.ParquetFile(file) as table:
        read = table.read(columns=list(names))
    return {name: read.column(name).to_pylist() for name in names}


def _numbers(table: Any, name: str) -> Any:  # noqa: ANN401 - pyarrow is untyped
    return np.frombuffer(table.column(name).chunk(0).buffers()[1], np.int32).astype(np.int64)


def _unreadable(file: Path, error: Exception) -> LineageError:
    return LineageError(
        f"{file} is what its card says, and cannot be read: {error}",
        cause="another version of the project wrote it.",
        remedy="read it with that version, or let the stage run again.",
    )


def holders(session: Session, what: str) -> Iterator[HolderRow]:
    """Give the tables that say this of samples."""
    yield from session.scalars(select(HolderRow).where(HolderRow.what == what))
