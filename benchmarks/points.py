"""An index of many metric points: filling it from run folders, and what questions to it take.

Ten thousand runs of ten keys each, and one long one whose curve has to be thinned. Their files are
written first; then one import brings them all, as `uni-moe index` does. Times are of the wall,
imports and connections included, medians over `--rounds`. What is asked for an import of nothing
holds for any number of points: it opens no file.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from benchmarks.answers import Case, Number, at_most
from benchmarks.registry import TIME, record, run_name
from benchmarks.setup import Setup
from uni_moe.artifacts import Layout, json_text
from uni_moe.registry.indexing import index
from uni_moe.registry.read import curve, metric_keys, top_runs
from uni_moe.registry.showing import show
from uni_moe.registry.versions import VARIABLE
from uni_moe.registry.writer import opened
from uni_moe.runs import METRICS, RECORD

KEYS = 10
LONG_STEPS = 1_000_000
BODIES = 16  # different courses of a run; what ends them is each run's own
NOTHING_S, TOP_S, CURVE_S, LONG_S, STEP_S, POINT_BYTES = 2.0, 0.05, 0.05, 1.0, 0.05, 30.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """How many, and where."""
    parser.add_argument("--points", type=int, default=100_000_000, help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, help="of the workspace; default: a temporary one")


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Write the files, import them, ask."""
    os.environ.pop(VARIABLE, None)  # nobody's database
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        layout = Layout(Path(folder))
        long_steps = min(LONG_STEPS, options.points // 10)
        steps = max(1, (options.points - long_steps) // (options.runs * KEYS))
        write(layout, options.runs, steps, long_steps, setup.seed)
        began = time.perf_counter()
        counts = index(layout)
        took_s = time.perf_counter() - began
        facts = {"filling_s": round(took_s), "rows": counts}
        numbers = [*filled(layout, counts["points"], took_s), *asked(layout, setup.rounds, steps)]
        title = f"{counts['points']:,} points of {options.runs:,} runs"
        yield Case(title, numbers=numbers, facts=facts)


def write(layout: Layout, runs: int, steps: int, long_steps: int, seed: int) -> None:
    """Write run folders as trainings leave them: so many steps of ten keys, and a long one."""
    draw = random.Random(seed)
    bodies = [
        "".join(line(step, {f"key-{key}": draw.random() for key in range(KEYS)}) for step in told)
        for told in [range(steps - 1)] * BODIES
    ]
    for number in range(runs):
        last = {f"key-{key}": draw.random() for key in range(KEYS)}
        write_run(layout, run_name(number), bodies[number % BODIES] + line(steps - 1, last))
    course = (line(step, {"loss": draw.random()}) for step in range(long_steps))
    write_run(layout, run_name(runs), "".join(course))


def line(step: int, values: dict[str, float]) -> str:
    """Return a line as a run writes it."""
    told = ", ".join(f'"{key}": {value!r}' for key, value in values.items())
    return f'{{"time": "{TIME}", "step": {step}, {told}}}\n'


def write_run(layout: Layout, run: str, text: str) -> None:
    """Write a folder of a run that has ended; nobody waits for the disk here."""
    folder = layout.runs / run
    folder.mkdir(parents=True)
    (folder / METRICS).write_text(text, encoding="utf-8")
    told = record(run) | {"status": "done", "ended": TIME}
    (folder / RECORD).write_text(json_text(told), encoding="utf-8")


def filled(layout: Layout, points: int, took_s: float) -> list[Number]:
    """Return what filling took, in time and on disk."""
    size = show(layout).size_bytes / points
    return [
        Number("imported", points / took_s, "points a second"),
        Number("the index on disk", size, "bytes a point", bar=at_most(POINT_BYTES)),
    ]


def asked(layout: Layout, rounds: int, steps: int) -> list[Number]:
    """Return what an import of nothing, a step of a run and questions take."""
    runs = sorted(folder.name for folder in layout.runs.iterdir())
    some, long = runs[len(runs) // 2], runs[-1]
    questions: dict[str, tuple[Callable[[], object], float]] = {
        "an import of nothing": (lambda: index(layout), NOTHING_S),
        "the best 100 runs by a metric": (lambda: top_runs(layout, "key-3", 100), TOP_S),
        "the keys of a run": (lambda: metric_keys(layout, some), CURVE_S),
        "a curve of a run": (lambda: curve(layout, some, "key-3"), CURVE_S),
        "a curve of the long run, thinned": (lambda: curve(layout, long, "loss"), LONG_S),
    }
    numbers = [
        Number(what, seconds(ask, rounds), "s", bar=at_most(bar))
        for what, (ask, bar) in questions.items()
    ]
    with opened(layout) as writer:
        later = iter(range(steps, steps + rounds + 1))
        values = {f"key-{key}": 0.5 for key in range(KEYS)}
        step_s = seconds(
            lambda: writer.add_lines(some, [{"time": TIME, "step": next(later), **values}]), rounds
        )
    return [*numbers, Number("one more step of a run, written", step_s, "s", bar=at_most(STEP_S))]


def seconds(ask: Callable[[], object], rounds: int) -> float:
    """Return what a call takes, in the middle; the first does not count."""
    found = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        ask()
        found.append(time.perf_counter() - began)
    return median(found[1:])
