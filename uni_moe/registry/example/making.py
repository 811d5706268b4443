"""Makes a whole example: a workspace whose past is in the index and whose end is on disk, too."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from uni_moe.artifacts import Layout
from uni_moe.config import load_params
from uni_moe.errors import ConfigError
from uni_moe.registry.database import writing
from uni_moe.registry.example.curves import keys, weight
from uni_moe.registry.example.filling import Filler, filling, older
from uni_moe.registry.example.folders import write_folder, write_record
from uni_moe.registry.example.history import History, Told, is_training
from uni_moe.registry.example.kept import kept, write_decisions, write_store
from uni_moe.registry.indexing import index
from uni_moe.registry.versions import VARIABLE
from uni_moe.workspace import make_workspace

FOLDERS = 50  # runs whose folders are whole still, the last ones; the others keep their record
LEAST_STEPS = 4
_SAID_S = 2.0  # progress is told so often
_RECIPE = "playground"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sizes:
    """How large an example is; points and nodes are about so many."""

    runs: int
    points: int
    nodes: int | None = None  # artifacts; None: as many as the runs make
    seed: int = 0


@dataclass(frozen=True)
class _Plan:
    """What is made: runs, the steps of those that train, and which keep their folders whole."""

    history: History
    steps: Mapping[str, int]
    late: frozenset[str]


def make_example(folder: Path, sizes: Sizes, until: datetime, say: Say) -> dict[str, int]:
    """Make an example in a new or empty folder; return the rows of its index.

    The same sizes and moment give the same example.

    Raises:
        ConfigError: the folder holds something, the sizes are too small, or another database is
            named.
    """
    _check(sizes)
    layout = Layout(make_workspace(folder, _RECIPE))
    params = load_params(layout.params)
    history = History(sizes.seed, sizes.runs, params.gate, params.section("telemetry"))
    history.date(until)
    say(f"{len(history.runs):,} runs and {len(history.versions):,} versions are planned")
    late = frozenset(run.id for run in history.runs[-FOLDERS:])
    plan = _Plan(history, steps_of(history, sizes.points), late)
    with writing(layout):
        pass  # the tables
    with filling(layout) as filler:
        _fill(filler, plan, sizes, say)
    _write(layout, plan, until)
    say("run folders, store and audit log are written; they are imported now")
    return index(layout)


def steps_of(history: History, points: int) -> Mapping[str, int]:
    """Return run -> the steps that it would take, so that all tell about so many points."""
    trains = [run for run in history.runs if is_training(run.stage)]
    told = {run.stage: len(keys(run.stage)) + 1 for run in trains}  # with the time
    cost = {run.id: weight(run.stage) * _own(run) * run.share * told[run.stage] for run in trains}
    unit = points / sum(cost.values())
    return {run.id: max(LEAST_STEPS, round(unit * weight(run.stage) * _own(run))) for run in trains}


def _own(run: Told) -> float:
    """Return how long a run trains beside others of its stage."""
    return 0.7 + 0.6 * ((run.number * 7919) % 101) / 100


def _check(sizes: Sizes) -> None:
    if sizes.runs < FOLDERS // 2 or sizes.points < sizes.runs:
        raise ConfigError(
            f"{sizes.runs} runs with {sizes.points} points are too few for an example.",
            cause=f"its shapes need {FOLDERS // 2} runs and a point for each at least.",
            remedy="ask for more, such as --runs 300 --points 100000.",
        )
    if os.environ.get(VARIABLE):
        raise ConfigError(
            f"An example is filled into a file of its own, and {VARIABLE} names another database.",
            cause="rows that nothing on disk tells of have no place in an index that is in use.",
            remedy=f"unset {VARIABLE}.",
        )


def _fill(filler: Filler, plan: _Plan, sizes: Sizes, say: Say) -> None:
    """Put in what folders do not tell any more."""
    history, tell = plan.history, _Seldom(say)
    more = max(0, (sizes.nodes or 0) - len(history.cards))
    for count in filler.add_graph(older(sizes.seed + 1, more)):
        tell(f"{count:,} of {more:,} older artifacts")
    filler.add_cards(history.cards)
    filler.add_contracts(history.cards)
    past = [run for run in history.runs if run.id not in plan.late and run.decision is None]
    filler.add_runs(past)
    stays = kept(history)
    filler.add_scores(one for one in history.versions if one not in stays)
    points = 0
    for run in past:
        if run.id in plan.steps:
            points += filler.add_course(run, plan.steps[run.id])
            tell(f"{points:,} of {sizes.points:,} points")


def _write(layout: Layout, plan: _Plan, until: datetime) -> None:
    """Write what lies on disk: the last run folders, all decisions, and the store."""
    history = plan.history
    done = [run for run in history.runs if run.id in plan.late and run.status == "done"]
    tunings = [run.id for run in done if run.stage == "tune"]
    others = [run.id for run in done if is_training(run.stage) and run.stage != "tune"]
    for run in history.runs:
        if run.id in plan.late or run.decision is not None:
            write_folder(
                layout,
                run,
                plan.steps.get(run.id, 0),
                alarms=run.id in tunings[-1:],
                not_finite=run.id in others[-1:],
            )
        else:
            write_record(layout, run)
    write_store(layout, history, kept(history))
    write_decisions(layout, history, until)


class _Seldom:
    """Says something every now and then."""

    def __init__(self, say: Say) -> None:
        self._say, self._next = say, time.monotonic() + _SAID_S

    def __call__(self, text: str) -> None:
        if time.monotonic() >= self._next:
            self._say(text)
            self._next = time.monotonic() + _SAID_S
