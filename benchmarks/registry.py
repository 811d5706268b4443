"""The index beside MLflow's store, both in SQLite with synchronous=FULL, in turns.

Both are told the same by their own doors: a number of a step, with its time; a thousand numbers in
one transaction; a new run; the hundred best of ten thousand runs. What stands there for the last is
written before, by rows and not through a door. MLflow is measured as it ships, with a rollback
journal, and put into the WAL mode that ours runs in. SQLite is given statistics on both its stores,
which it does not ask for: without them its question for the best takes squared time, which is told
once. Files in runs/ are not counted, which ours
imports from, nor are MLflow's artifacts. Time is of the wall: it is the disk that is waited for.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.answers import Bar, Case, Claim, at_least, rows_of
from benchmarks.mlflow_place import NAME, MlflowPlace, MlflowProcess, mlflow, mlflow_python
from benchmarks.rounds import OURS, SHIPPED, Burst, Contender, Place, measure
from benchmarks.setup import Setup
from uni_moe.artifacts import Layout
from uni_moe.errors import StageError
from uni_moe.registry.read import top_runs
from uni_moe.registry.versions import VARIABLE
from uni_moe.registry.writer import Writer, opened

WAL = "WAL"
BARS = {"point": 5.0, "batch": 10.0, "run": 10.0, "top": 50.0}
TITLES = {
    "point": "one number in a transaction",
    "batch": "1,000 numbers in a transaction, 100 steps of 10 keys",
    "run": "a new run",
    "top": "the best 100 of {runs:,} runs by a metric",
}
KEYS, STEPS, BEST = 10, 100, 100
TIME = "2026-03-01T12:00:00+00:00"
_FULL = 2  # what SQLite calls synchronous=FULL
_OURS, _SHIPPED, _WAL = (
    Contender(OURS, f"in {WAL} mode"),
    Contender(NAME, SHIPPED),
    Contender(NAME, f"put into {WAL} mode"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """How many runs there are, and where MLflow is."""
    parser.add_argument("--runs", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--mlflow", type=Path, metavar="PYTHON", help="default: made and kept")
    parser.add_argument("--folder", type=Path, help="of the databases; default: a temporary one")


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Measure one thing after the other."""
    python = options.mlflow or mlflow_python()
    os.environ.pop(VARIABLE, None)  # nobody's database
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
        layout = Layout(folder / OURS)
        layout.root.mkdir()
        ours = Ours(layout, stack.enter_context(opened(layout)))
        beside = {
            contender: stack.enter_context(mlflow(python, folder / f"{name}.sqlite", journal))
            for contender, name, journal in ((_SHIPPED, "shipped", None), (_WAL, "wal", WAL))
        }
        facts = fill(ours, beside, options.runs, setup.seed)
        facts |= settings(beside)
        for what, times in BARS.items():
            places: dict[str, Place] = {_OURS.setting: OursPlace(ours, what)}
            places |= {one.setting: MlflowPlace(side, what) for one, side in beside.items()}
            found = measure(places, rounds=setup.rounds, seed=setup.seed, burst_s=setup.burst_s)
            asked: Bar | None = at_least(times) if options.runs >= 10_000 else None
            claims = [
                Claim(_SHIPPED, _OURS, asked),
                Claim(_WAL, _OURS, asked if what == "top" else None),
            ]
            yield Case(TITLES[what].format(runs=options.runs), rows_of(found, claims), (), facts)


@dataclass(frozen=True)
class Ours:
    """Our index, with a writer that stays."""

    layout: Layout
    writer: Writer

    def call(self, what: str, index: int) -> Callable[[], object]:
        """Return call number `index` of one thing."""
        run, writer = run_name(-1), self.writer
        if what == "run":
            return lambda: writer.add_run(record(f"new-{index:06}"))
        if what == "top":
            return lambda: top_runs(self.layout, "loss", BEST)
        if what == "point":
            return lambda: writer.add_lines(run, [{"time": TIME, "step": index, "loss": 0.5}])
        values = {f"key-{key}": 0.5 for key in range(KEYS)}
        lines = [{"time": TIME, "step": index * STEPS + step, **values} for step in range(STEPS)]
        return lambda: writer.add_lines(run_name(-2), lines)


@dataclass(frozen=True)
class OursPlace:
    """One thing that ours does, as a place of rounds."""

    ours: Ours
    what: str
    names: tuple[str, ...] = (OURS,)
    absent: dict[str, str] = field(default_factory=dict)

    def burst(self, name: str, first: int, calls: int) -> Burst:
        """See Place."""
        del name
        ready = [self.ours.call(self.what, index) for index in range(first, first + calls)]
        seconds = []
        for call in ready:
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
        return Burst(median(seconds))


def fill(
    ours: Ours, beside: dict[Contender, MlflowProcess], runs: int, seed: int
) -> dict[str, Any]:
    """Give all of them as many runs, and see that all find the same best.

    Returns:
        What finding them took where SQLite has no statistics.

    Raises:
        StageError: they do not.
    """
    draw = random.Random(seed)
    for index in (-2, -1):
        ours.writer.add_run(record(run_name(index)))
    ours.writer.add_runs(
        (record(run_name(index)), [{"step": 1, "loss": draw.random()}]) for index in range(runs)
    )
    best = [one.last for one in top_runs(ours.layout, "loss", BEST)]
    told = {}
    for one, side in beside.items():
        side.ask("fill", runs=runs, seed=seed)
        found = side.ask("best", n=BEST)
        told[f"the best without statistics, {one}"] = f"{found['seconds']:.3g} s"
        side.ask("statistics")
        if found["values"] != best:
            raise StageError(
                f"Ours and {one} do not find the same best runs.",
                cause="they were filled with other numbers: this is our bug.",
                remedy="tell us.",
            )
    return told


def settings(beside: dict[Contender, MlflowProcess]) -> dict[str, Any]:
    """Return how MLflow's stores are set; ours is held to FULL by a test.

    Raises:
        StageError: one is less durable than FULL.
    """
    told = {str(one): side.ask("settings") for one, side in beside.items()}
    for one, setting in told.items():
        if setting["synchronous"] != _FULL:
            raise StageError(
                f"{one} is not as durable as ours: {setting}.",
                cause="its store sets SQLite otherwise than synchronous=FULL.",
                remedy="measure with the version that benchmarks/mlflow_place.py names.",
            )
    return told


def run_name(index: int) -> str:
    """Return a name as long as runs have."""
    return f"20260301T120000-tune-{index:06}"


def record(run: str) -> dict[str, Any]:
    """Return the record of a run."""
    known = {"stage": "tune", "status": "running", "started": TIME, "user": "ada", "host": "here"}
    return {"id": run, **known, "artifacts": {}}
