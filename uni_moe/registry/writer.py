"""A connection to the index that stays open. Many processes may have one: they take turns.

Whatever a writer is told is one transaction. When a call returns, what it wrote outlives a power
cut; a process that dies in the middle of one leaves nothing of it. The files in runs/ stay the
truth: what they do not say is gone after a rebuild.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine

from uni_moe.artifacts import Layout
from uni_moe.registry import engines, points
from uni_moe.registry.database import turn, working, writing
from uni_moe.registry.importing import import_run
from uni_moe.registry.metric_import import SLICE_BYTES, Unread, read_on
from uni_moe.registry.versions import known, look, refuse, version_of


class Writer:
    """Puts runs and their numbers into the index."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_run(self, record: Mapping[str, Any]) -> None:
        """Put in a run by its record, as run.json holds it, or what has changed of it."""
        with self._transaction() as connection:
            import_run(connection, record)

    def add_runs(
        self, runs: Iterable[tuple[Mapping[str, Any], Iterable[Mapping[str, Any]]]]
    ) -> None:
        """Put in many runs, each by its record and its lines, in one transaction."""
        with self._transaction() as connection:
            for record, lines in runs:
                import_run(connection, record)
                points.add(connection, record["id"], points.told(lines))

    def add_lines(self, run: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Put in numbers of a run that is there, by lines as metrics.jsonl holds them."""
        told = points.told(lines)
        with self._transaction() as connection:
            points.add(connection, run, told)

    def read(self, runs: Iterable[Unread], most_bytes: int = SLICE_BYTES) -> None:
        """Import what is new in the metrics of runs, so many bytes in a transaction."""
        waiting = deque(runs)
        while waiting:
            with self._transaction() as connection, working(connection) as session:
                read_on(session, waiting, most_bytes)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Give a turn; an index that was upgraded meanwhile is told."""
        with turn(self._engine) as connection:
            if version_of(connection) != known()[-1]:
                raise refuse(connection, look(connection))
            yield connection


@contextmanager
def opened(layout: Layout, url: str | None = None) -> Iterator[Writer]:
    """Give a writer to the index of a workspace; a new one gets its tables.

    Raises:
        ConfigError: as `writing`, also of what a writer is asked later.
        StoreError: the disk is full.
    """
    with writing(layout, url):
        pass
    engine = engines.writer(layout, url)
    try:
        yield Writer(engine)
    finally:
        engine.dispose()
