"""MLflow's own pages beside the dashboard's: the table of runs, and a run, opened by addresses.

Both show the same runs, each out of its own SQLite store. MLflow's has names, times, tags and the
last number of each key, and of the run that is opened as many points as ours draws; ours has all
points. Both servers are on this machine, one worker each, and answer in turns; what is opened has
been opened before.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from benchmarks.answers import Case, Claim, at_least, rows_of
from benchmarks.browser import HOST, Screen, Server, Wanted, free_port, served
from benchmarks.mlflow_place import NAME, mlflow
from benchmarks.rounds import OURS, SHIPPED, Contender, Measured
from benchmarks.setup import Setup
from dashboard.site import PLACES
from uni_moe.artifacts import Layout
from uni_moe.registry.database import reading
from uni_moe.registry.metric_tables import TIME, SeriesRow
from uni_moe.registry.read import curve, metric_keys
from uni_moe.registry.tables import RunRow

TIMES = 5.0
_OURS, _THEIRS = Contender(OURS, "opened by its address"), Contender(NAME, SHIPPED)
_MOST_POINTS = 1000  # of a curve that MLflow is given: more are not drawn by ours either
SHOWS = {"runs": "the table of runs", "run": "a run with its curves"}  # our page -> what it shows
THEIR_CONTENT = {"runs": '.ag-row a[href*="/runs/"]', "run": ".js-plotly-plot svg"}


@dataclass(frozen=True)
class Theirs:
    """MLflow's server, and what it calls the runs."""

    server: Server
    base: str  # address of the table of runs
    names: Mapping[str, str]
    run: str  # ours, that is opened

    def address_of(self, page: str) -> str:
        """Return where MLflow shows what a page of ours does."""
        return {"runs": self.base, "run": f"{self.base}/{self.names[self.run]}"}[page]


@contextmanager
def beside(python: Path, layout: Layout, draft: Path) -> Iterator[Theirs]:
    """Fill a store of MLflow's with our runs, and serve it."""
    run, lines, store = some_run(layout), draft / "runs.jsonl", draft / "mlflow.sqlite"
    write_runs(layout, run, lines)
    with mlflow(python, store, "WAL") as side:
        given = side.ask("told", file=str(lines))
    port = free_port()
    words = [str(python), "-m", "mlflow", "ui", "--backend-store-uri", f"sqlite:///{store}"]
    words += ["--host", HOST, "--port", str(port), "--workers", "1"]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with served(words, port, "/health", {**os.environ, **quiet}) as server:
        base = f"{server.address}/#/experiments/{given['experiment']}/runs"
        yield Theirs(server, base, given["names"], run)


def compared(
    screen: Screen,
    server: Server,
    theirs: Theirs,
    contents: Mapping[str, str],
    setup: Setup,
) -> Iterator[Case]:
    """Open each page of ours and of MLflow's in turns; `contents` is our page -> its content."""
    for name, content in contents.items():
        address = f"{server.address}/{name}" + (f"?run={theirs.run}" if name == "run" else "")
        looks: dict[Contender, tuple[str, Wanted]] = {
            _OURS: (address, {"title": PLACES[name].title, "content": content}),
            _THEIRS: (theirs.address_of(name), {"content": THEIR_CONTENT[name]}),
        }
        found = in_turns(screen, looks, setup)
        rows = rows_of(found, [Claim(_THEIRS, _OURS, at_least(TIMES))])
        facts: dict[str, object] = {
            f"seconds of {one}": _told(times) for one, times in found.seconds.items()
        }
        facts |= {"our_content": content, "their_content": THEIR_CONTENT[name]}
        facts["their_memory_gb"] = round(theirs.server.held_bytes() / 1e9, 2)
        yield Case(f"{SHOWS[name]} of {len(theirs.names):,}, beside {NAME}", rows, facts=facts)


def _told(seconds: list[float]) -> list[float]:
    return [round(one, 3) for one in seconds]


def in_turns(screen: Screen, looks: dict[Contender, tuple[str, Wanted]], setup: Setup) -> Measured:
    """Open pages in turns, after one visit each that does not count."""
    found, draw = Measured(), random.Random(setup.seed)
    for place in range(setup.rounds + 1):
        took = {one: screen.open(*looks[one]) for one in draw.sample(list(looks), len(looks))}
        if place == 0:
            continue
        for one, seconds in took.items():
            if seconds is None:
                found.absent[one] = "its content never came"
            else:
                found.seconds.setdefault(one, []).append(seconds)
    for one in found.absent:
        found.seconds.pop(one, None)
    found.calls = dict.fromkeys(looks, 1)
    found.peak_bytes = dict.fromkeys(looks, None)
    return found


def some_run(layout: Layout) -> str:
    """Return the last tuning that ended well."""
    asked = select(RunRow.id).where(RunRow.stage == "tune", RunRow.status == "done")
    with reading(layout) as session:
        found = session.scalars(asked.order_by(RunRow.started.desc()).limit(1)).one()
    return str(found)


def write_runs(layout: Layout, whole: str, file: Path) -> int:
    """Write what MLflow is told: every run with its last numbers, and one with its curves."""
    with reading(layout) as session, file.open("w", encoding="utf-8") as stream:
        last: dict[str, dict[str, Any]] = {}
        columns = (SeriesRow.run, SeriesRow.key, SeriesRow.last_step, SeriesRow.last)
        for run, key, step, value in session.execute(select(*columns).where(SeriesRow.key != TIME)):
            if value is not None:
                last.setdefault(run, {})[key] = [[step, value]]
        rows = session.scalars(select(RunRow)).all()
        for row in rows:
            metrics = last.get(row.id, {})
            if row.id == whole:
                metrics = {key: points(layout, whole, key) for key in metric_keys(layout, whole)}
            stream.write(json.dumps(line(row, metrics)) + "\n")
    return len(rows)


def points(layout: Layout, run: str, key: str) -> list[tuple[int, float]]:
    """Return the points of a curve that ours would draw."""
    return [(one.step, one.value) for one in curve(layout, run, key, at_most=_MOST_POINTS)]


def line(row: RunRow, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return a run as MLflow is told of it."""
    words = {"done": "FINISHED", "failed": "FAILED", "died": "KILLED"}
    tags = {"mlflow.runName": row.id, "mlflow.user": row.user, "reason": row.reason}
    return {
        "name": row.id,
        "status": words.get(row.status, "RUNNING"),
        "start_time": _milliseconds(row.started),
        "end_time": None if row.ended is None else _milliseconds(row.ended),
        "user": row.user,
        "tags": {key: value for key, value in tags.items() if value},
        "params": {"stage": row.stage, "host": row.host or ""},
        "metrics": metrics,
    }


def _milliseconds(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)
