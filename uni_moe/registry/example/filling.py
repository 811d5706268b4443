"""Puts the past of an example into its index, by rows and many at once.

These are the rows that an import of the same cards, records and metrics leaves.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from sqlalchemy import Connection, insert

from uni_moe.artifacts import Layout
from uni_moe.records import Card, ContractReport, RuleVerdict
from uni_moe.registry import engines
from uni_moe.registry.base import Base
from uni_moe.registry.example.contracts import contract_report
from uni_moe.registry.example.curves import Numbers, course
from uni_moe.registry.example.history import Registered, Told, ended
from uni_moe.registry.example.road import Made, Road
from uni_moe.registry.metric_tables import TIME, MetricFileRow, SeriesRow
from uni_moe.registry.seen import CONTRACT
from uni_moe.registry.tables import ArtifactRow, EdgeRow, EvaluationRow, RunArtifactRow, RunRow
from uni_moe.registry.tables_data import ContractRow, RuleRow

_BATCH = 20_000  # rows of one statement
_AT_ONCE = 250  # points of one statement
_PUT_ARTIFACT = (
    "INSERT INTO artifacts (id, name, stage, kind, code, params, results) "
    "VALUES (?, ?, ?, ?, 'older', '{}', '{}')"
)
_PUT_EDGE = "INSERT INTO edges (child, name, parent) VALUES (?, ?, ?)"
_BYTES = 22  # of a point in a run's file

Row = Mapping[str, Any]


class Filler:
    """Writes into a new index that nobody reads; its connection keeps no journal."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._series = 0

    def add_graph(self, artifacts: Iterable[Made]) -> Iterator[int]:
        """Add artifacts of which only the index knows; give how many there are by now."""
        count, waiting = 0, iter(artifacts)
        while part := list(islice(waiting, _BATCH)):
            cursor = self._raw()
            cursor.executemany(_PUT_ARTIFACT, [_artifact(one) for one in part])
            cursor.executemany(_PUT_EDGE, [(one.id, *pair) for one in part for pair in one.parents])
            count += len(part)
            yield count

    def add_cards(self, cards: Mapping[str, tuple[str, Card]]) -> None:
        """Add artifacts by their cards."""
        self._rows(ArtifactRow, [_card_row(id_, *told) for id_, told in cards.items()])
        edges = [row for id_, (_, card) in cards.items() for row in _edges(id_, _pairs(card))]
        self._rows(EdgeRow, edges)

    def add_contracts(self, cards: Mapping[str, tuple[str, Card]]) -> None:
        """Add what the contract found, by the cards of its reports."""
        reports = {
            id_: contract_report(card.results["made"])
            for id_, (_, card) in cards.items()
            if card.kind == CONTRACT
        }
        self._rows(ContractRow, [_contract_row(id_, told) for id_, told in reports.items()])
        rules = [_rule_row(id_, rule) for id_, told in reports.items() for rule in told.rules]
        self._rows(RuleRow, rules)

    def add_runs(self, runs: Iterable[Told]) -> None:
        """Add runs and what they made."""
        every = list(runs)
        self._rows(RunRow, [run_row(run) for run in every])
        made = [
            {"run": run.id, "name": name, "artifact": artifact}
            for run in every
            for name, artifact in run.artifacts.items()
        ]
        self._rows(RunArtifactRow, made)

    def add_scores(self, versions: Iterable[Registered]) -> None:
        """Add what reports said of models."""
        self._rows(EvaluationRow, [row for one in versions for row in _score_rows(one)])

    def add_course(self, run: Told, steps: int) -> int:
        """Add what a run told at each step, as one that was imported whole; return the points."""
        found = course(run.stage, steps, run.number, run.share)
        told = {**found.of, TIME: times(run, found.steps)}
        cursor = self._raw()
        rows = []
        for key in sorted(told):
            self._series += 1
            numbers = told[key]
            _put_points(cursor, self._series, numbers.tolist())
            rows.append({"id": self._series, "run": run.id, "key": key, **_summary(numbers)})
        self._rows(SeriesRow, rows)
        points = len(told) * found.steps
        self._rows(MetricFileRow, [{"run": run.id, "position": points * _BYTES, "is_whole": True}])
        return points

    def _rows(self, table: type[Base], rows: Sequence[Row]) -> None:
        for first in range(0, len(rows), _BATCH):
            self._connection.execute(insert(table), rows[first : first + _BATCH])

    def _raw(self) -> Any:  # noqa: ANN401 - a DBAPI cursor
        return self._connection.connection.cursor()


@contextmanager
def filling(layout: Layout) -> Iterator[Filler]:
    """Give a filler for an index that has its tables and nothing in them."""
    engine = engines.filler(layout)
    try:
        with engine.begin() as connection:
            yield Filler(connection)
    finally:
        engine.dispose()


def older(seed: int, least: int) -> Iterator[Made]:
    """Give artifacts of retrainings until there are so many."""
    road = Road(random.Random(seed))
    while road.count < least:
        yield from road.retrain(road.choose())


def _put_points(cursor: Any, series: int, numbers: list[float]) -> None:  # noqa: ANN401 - a DBAPI's
    """Insert numbers of the steps from 1 on; as many rows a statement as pays."""
    for first in range(0, len(numbers), _AT_ONCE):
        part = numbers[first : first + _AT_ONCE]
        cursor.execute(_put(len(part)), [series, first + 1, *part])


@lru_cache(maxsize=_AT_ONCE)
def _put(count: int) -> str:
    rows = ",".join(f"(?1,?2+{place},?{place + 3})" for place in range(count))
    return f"INSERT INTO points (series, step, value) VALUES {rows}"


def run_row(run: Told) -> dict[str, Any]:
    """Return a run's row; its record in run.json says the same."""
    return {
        "id": run.id,
        "stage": run.stage,
        "status": run.status,
        "started": run.started,
        "ended": ended(run),
        "duration_s": None if run.status == "died" else run.duration_s,
        "user": run.user,
        "host": run.host,
        "reason": run.reason,
        "commit": COMMIT,
        "error": run.error,
    }


COMMIT = "0" * 40  # no code ran


def times(run: Told, steps: int) -> Numbers:
    """Return when each step ended, in seconds since 1970."""
    begin = datetime.fromisoformat(run.started).timestamp()
    return begin + np.linspace(0.05, 0.98, steps) * run.duration_s


def _summary(numbers: Numbers) -> Row:
    last, least, greatest = float(numbers[-1]), float(numbers.min()), float(numbers.max())
    steps = len(numbers)
    told = {"points": steps, "last_step": steps, "last": last}
    return {**told, "least": least, "greatest": greatest}


def _artifact(one: Made) -> tuple[str, str, str, str]:
    return one.id, one.name, one.stage, one.kind


def _card_row(id_: str, name: str, card: Card) -> Row:
    told = {"id": id_, "name": name, "stage": card.stage, "kind": card.kind, "code": card.code}
    return {**told, "params": dict(card.params), "results": dict(card.results)}


def _contract_row(id_: str, told: ContractReport) -> Row:
    about = {"report": id_, "name": told.contract, "version": told.version, "kept": told.kept}
    return {**about, "sha256": told.contract_sha256, "breaches": list(told.breaches)}


def _rule_row(id_: str, rule: RuleVerdict) -> Row:
    names = ("code", "level", "rule", "checked", "failed")
    return {"report": id_, **{name: getattr(rule, name) for name in names}}


def _pairs(card: Card) -> Iterable[tuple[str, str]]:
    return card.parents.items()


def _edges(child: str, parents: Iterable[tuple[str, str]]) -> Iterator[Row]:
    for name, parent in parents:
        yield {"child": child, "name": name, "parent": parent}


def _score_rows(one: Registered) -> Iterator[Row]:
    report = one.sitting.exam.report
    for scope, scores in (("modality", report.modalities), ("task", report.tasks)):
        for name, score in scores.items():
            about = {"report": one.report, "scope": scope, "name": name, "model": one.model}
            yield {**about, **asdict(score)}
