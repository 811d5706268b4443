"""The side of MLflow: a program for an environment of its own, told by lines of JSON what to do.

It knows nothing of ours. `python mlflow_side.py DATABASE.sqlite` answers each line with one.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from mlflow import __version__
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

KEYS, STEPS = 10, 100  # of a batch
MILLISECONDS = 1_700_000_000_000


class Side:
    """A tracking store in a SQLite file, by MLflow's own client."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._client = MlflowClient(tracking_uri=f"sqlite:///{file}")
        self._experiment = self._client.create_experiment("written")
        self._filled = self._client.create_experiment("filled")
        self._run = self._client.create_run(self._experiment).info.run_id

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what one line asks for."""
        words: dict[str, Callable[..., dict[str, Any]]] = {
            "journal": self._journal,
            "settings": self._settings,
            "fill": self._fill,
            "best": self._best,
            "statistics": self._statistics,
            "burst": self._burst,
            "told": self._told,
        }
        return words[asked.pop("word")](**asked)

    def _journal(self, mode: str) -> dict[str, Any]:
        with closing(sqlite3.connect(self._file)) as connection:
            return {"mode": connection.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]}

    def _settings(self) -> dict[str, Any]:
        """Say how its own connections are set."""
        store = self._client._tracking_client.store  # noqa: SLF001 - no public word leads there
        with store.engine.connect() as connection:
            names = ("synchronous", "journal_mode")
            told = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}
        return {"version": __version__, **told}

    def _fill(self, runs: int, seed: int) -> dict[str, Any]:
        """Copy a run that the client made, with one number each."""
        first = self._client.create_run(self._filled).info.run_id
        self._client.log_metric(first, "loss", 0.0, step=1)
        draw = random.Random(seed)
        values = [draw.random() for _ in range(runs)]
        names = [uuid.uuid4().hex for _ in values]
        with closing(sqlite3.connect(self._file)) as connection, connection:
            for table in ("runs", "tags", "metrics", "latest_metrics"):
                _copy(connection, table, first, dict(zip(names, values, strict=True)))
        return {"runs": runs}

    def _best(self, n: int) -> dict[str, Any]:
        began = time.perf_counter()
        found = self._client.search_runs(
            [self._filled], order_by=["metrics.loss DESC"], max_results=n
        )
        seconds = time.perf_counter() - began
        return {"values": [run.data.metrics["loss"] for run in found], "seconds": seconds}

    def _statistics(self) -> dict[str, Any]:
        """Collect what SQLite plans by; without it the best runs are found in squared time."""
        with closing(sqlite3.connect(self._file)) as connection, connection:
            connection.execute("ANALYZE")
        return {}

    def _told(self, file: str) -> dict[str, Any]:
        """Write runs that a file tells of, a line each; return the names that it gave them.

        A run's numbers are key -> (step, value) pairs.
        """
        first = self._client.create_run(self._filled, run_name="first").info.run_id
        self._client.log_metric(first, "loss", 0.0, step=1)
        self._client.log_param(first, "stage", "tune")
        names: dict[str, str] = {}
        with closing(sqlite3.connect(self._file)) as connection, connection:
            rows = {table: _row(connection, table, first) for table in _TABLES}
            for table in _TABLES:
                connection.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (first,))
            with Path(file).open(encoding="utf-8") as lines:
                for line in lines:
                    told = json.loads(line)
                    names[told["name"]] = uuid.uuid4().hex
                    _put_run(connection, rows, told, names[told["name"]])
            connection.execute("ANALYZE")
        return {"names": names, "experiment": self._filled}

    def _burst(self, what: str, first: int, calls: int) -> dict[str, Any]:
        ready = [self._call(what, index) for index in range(first, first + calls)]
        seconds = []
        for call in ready:
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
        return {"seconds": median(seconds)}

    def _call(self, what: str, index: int) -> Callable[[], object]:
        client, run = self._client, self._run
        if what == "run":
            return lambda: client.create_run(self._experiment)
        if what == "top":
            return lambda: self._best(100)
        if what == "point":
            return lambda: client.log_metric(run, "loss", 0.5, step=index)
        batch = [
            Metric(f"key-{key}", 0.5, MILLISECONDS + index, index * STEPS + step)
            for step in range(STEPS)
            for key in range(KEYS)
        ]
        return lambda: client.log_batch(run, metrics=batch)


_TABLES = ("runs", "tags", "params", "metrics", "latest_metrics")


def _row(connection: sqlite3.Connection, table: str, run: str) -> dict[str, Any]:
    """Return a row of a run as a pattern for others."""
    found = connection.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run,))
    columns = [column[0] for column in found.description]
    return dict(zip(columns, found.fetchone(), strict=True))


def _put_run(
    connection: sqlite3.Connection, rows: dict[str, dict[str, Any]], told: dict[str, Any], run: str
) -> None:
    own = {name: told[name] for name in ("name", "status", "start_time", "end_time")}
    _put(connection, "runs", [{**rows["runs"], **own, "user_id": told["user"], "run_uuid": run}])
    for table, words in (("tags", told["tags"]), ("params", told["params"])):
        pairs = [{"key": key, "value": value, "run_uuid": run} for key, value in words.items()]
        _put(connection, table, [{**rows[table], **pair} for pair in pairs])
    at = told["end_time"] or told["start_time"]
    for table, last in (("metrics", False), ("latest_metrics", True)):
        points = [
            {"key": key, "step": step, "value": value, "timestamp": at, "run_uuid": run}
            for key, pairs in told["metrics"].items()
            for step, value in (pairs[-1:] if last else pairs)
        ]
        _put(connection, table, [{**rows[table], **point} for point in points])


def _put(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        marks = ", ".join(f":{name}" for name in rows[0])
        words = f"INSERT INTO {table} ({', '.join(rows[0])}) VALUES ({marks})"
        connection.executemany(words, rows)


def _copy(connection: sqlite3.Connection, table: str, run: str, values: dict[str, float]) -> None:
    """Copy a run's rows of one table under other names, with other numbers."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    rows = connection.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run,)).fetchall()
    copies = [
        tuple(
            name if column == "run_uuid" else changed(table, column, was, value)
            for column, was in zip(columns, row, strict=True)
        )
        for name, value in values.items()
        for row in rows
    ]
    marks = ", ".join("?" * len(columns))
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", copies)


def changed(table: str, column: str, was: object, value: float) -> object:
    """Return what a copy holds in a column."""
    return value if column == "value" and table.endswith("metrics") else was


def main() -> None:
    """Answer until the other side hangs up."""
    side = Side(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(side.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
