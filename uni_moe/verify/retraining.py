"""Grade 2: intervals of training trained again, every recorded state on the way compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uni_moe.artifacts import CARD, Layout, write_text
from uni_moe.train.state import StateStore, facts_of, is_told, rows_of, states_in, whole_states
from uni_moe.verify.case import Case
from uni_moe.verify.family import STATES, Family, Member
from uni_moe.verify.intervals import Interval, chance, covered, draw, intervals_of, stretches
from uni_moe.verify.past_params import paths_in
from uni_moe.verify.remaking import compared
from uni_moe.verify.scratch import Scratch, beside
from uni_moe.verify.shelf import Copy, Shelf, link_files
from uni_moe.verify.verdict import Drawn, Finding, Findings

Rows = Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True)
class Training:
    """A training that can be repeated: what it made, its recorded states, and what it reads.

    `kept` holds the states that are still there: step -> the folder.
    """

    generation: Family
    made: Member
    rows: Rows
    inputs: Mapping[str, Copy]
    kept: Mapping[int, Path]

    @property
    def steps(self) -> int:
        """How many steps it took."""
        return int(self.made.card.results["steps"])

    @property
    def intervals(self) -> list[Interval]:
        """What lies between its recorded states."""
        return intervals_of(self.made.label, self.rows, self.steps)


def retrain(case: Case, count: int | None, seed: int) -> Findings:
    """Train drawn intervals again, all of them where `count` is None; stop at the first bad one.

    Raises:
        StageError: a training could not go on.
    """
    trainings, others = _trainings(case)
    if not trainings and others.not_comparable:
        return others
    every = [interval for one in trainings.values() for interval in one.intervals]
    kept = {name: sorted(one.kept) for name, one in trainings.items()}
    drawn = draw(every, len(every) if count is None else count, seed)
    trained = stretches(drawn, kept)
    through = covered(every, trained)
    promise = Drawn(len(drawn), len(every), len(through), seed, chance(every, len(drawn), kept))
    case.say(promise.text)
    found = replace(others, drawn=promise)
    for number, stretch in enumerate(trained, 1):
        case.say(f"{number} of {len(trained)}: {stretch.text}")
        training = trainings[stretch.training]
        again = _trained_again(case, training, stretch)
        found = found.and_then(again)
        if again.bad or again.not_comparable:
            return found
    return found


def first_difference(told: Rows, found: Rows, stretch: Interval) -> int | None:
    """Return the first recorded step in a stretch whose state is another one; None without any."""
    steps = (step for step in sorted(told) if stretch.begin < step <= stretch.end)
    return next((step for step in steps if found.get(step) != told[step]), None)


def _trainings(case: Case) -> tuple[dict[str, Training], Findings]:
    """Return the trainings that can be repeated, in graph order, and why others cannot."""
    found, others = dict[str, Training](), Findings()
    for generation in reversed(case.family.line):
        ours, gone = _trainings_of(case, generation)
        obstacles = case.obstacles([one.made for one in ours])
        if not obstacles:
            found |= {one.made.label: one for one in ours}
        others = others.and_then(Findings(unchecked=gone, not_comparable=tuple(obstacles)))
    return found, others


def _trainings_of(case: Case, generation: Family) -> tuple[list[Training], tuple[Finding, ...]]:
    shelf, model = Shelf(case.layout), case.version.model
    known = {one.card.id: one for one in case.family.everyone}
    found, gone = list[Training](), list[Finding]()
    for one in generation.members:
        if not one.is_trained:
            continue
        copy = shelf.copy_of(one, model)
        parents = {
            name: shelf.copy_of(known[parent], model) for name, parent in one.card.parents.items()
        }
        inputs = {name: parent for name, parent in parents.items() if parent is not None}
        lacking = sorted(parents.keys() - inputs.keys())
        if copy is None:
            gone.append(Finding(one.label, "it is not kept here, nor what it tells of its states"))
        elif STATES not in copy.files:
            gone.append(Finding(one.label, "it tells of no state, so no interval can be compared"))
        elif lacking:
            what = f"its input is not kept here: {', '.join(lacking)}; grade 3 makes it again"
            gone.append(Finding(one.label, what))
        else:
            rows = rows_of(copy.files[STATES])
            kept = _kept(case.layout, one, rows)
            found.append(Training(generation, one, rows, inputs, kept))
    return found, tuple(gone)


def _kept(layout: Layout, one: Member, rows: Rows) -> dict[int, Path]:
    """Return the states of a training that are kept and have the recorded hash."""
    found: dict[int, Path] = {}
    for stage, folder in states_in(layout):
        if stage == one.card.stage:
            there = whole_states(folder)
            told = StateStore(folder).traces()
            found |= {
                step: place
                for step, place in there.items()
                if step in told and told[step].row == rows.get(step) and is_told(place, told[step])
                if _skipped_alike(place, one)
            }
    return found


def _skipped_alike(place: Path, one: Member) -> bool:
    """Say whether a state left out the steps that its artifact tells of, as far as it had come."""
    skipped = list(facts_of(place).get("skipped", ()))
    return skipped == list(one.card.results.get("skipped_steps", ()))[: len(skipped)]


def _trained_again(case: Case, training: Training, stretch: Interval) -> Findings:
    made, told = training.made, training.rows
    with beside(case.layout.root) as folder:
        scratch = Scratch(folder, case.layout.root)
        params = case.params_for(training.generation, [made])
        scratch.link(paths_in(params))
        for name, copy in training.inputs.items():
            copy.write(folder / name)
        if stretch.begin:
            lay_state(training.kept[stretch.begin], stretch.begin, scratch.layout)

        def enough() -> bool:
            rows = _rows(scratch.layout, made)
            last = max((step for step in told if step <= stretch.end), default=0)
            passed = {step: row for step, row in rows.items() if step <= stretch.end}
            so_far = Interval(stretch.training, stretch.begin, max(passed, default=0))
            is_bad = first_difference(told, passed, so_far) is not None
            return is_bad or (stretch.end < training.steps and last in passed)

        spread, routes = case.spread_for(made), case.routes_for(made)
        scratch.run(made.card.stage, params, spread, routes, until=enough)
        rows = _rows(scratch.layout, made)
        wrong = first_difference(told, rows, stretch)
        if wrong is not None:
            return _bad(case, training, wrong, rows.get(wrong))
        passed = covered(training.intervals, [stretch])
        found = Findings(tuple(one.text for one in passed))
        if stretch.end == training.steps:
            found = found.and_then(compared(case, [made], scratch.layout))
        return found


def _rows(layout: Layout, made: Member) -> Rows:
    """Return what a training here has recorded so far; its artifact tells it when it has ended."""
    artifact = layout.root / made.name
    if (artifact / CARD).is_file():
        return rows_of(artifact / STATES)
    with suppress(FileNotFoundError):  # it ends at this moment
        for stage, folder in states_in(layout):
            if stage == made.card.stage:
                return {step: one.row for step, one in StateStore(folder).traces().items()}
    return {}


def lay_state(kept: Path, step: int, layout: Layout) -> None:
    """Lay a kept state where its training looks for it, with the traces and the ledger up to it.

    The traces come along because the artifact tells of every state, those before it, too.
    """
    target = layout.state / kept.parent.name
    link_files(kept, target / kept.name)
    link_files(kept.parent / "ledger", target / "ledger")
    traces = StateStore(kept.parent).traces()
    lines = (json.dumps(vars(traces[one])) + "\n" for one in sorted(traces) if one <= step)
    write_text(target / STATES, "".join(lines))


def _bad(case: Case, training: Training, step: int, found: Mapping[str, Any] | None) -> Findings:
    """Name the interval that ends in a state that is another one."""
    name, told = training.made.label, training.rows[step]
    interval = next(one for one in training.intervals if one.end == step)
    which = [key for key in told if found is None or found.get(key) != told[key]]
    what = (
        f"steps {interval.begin + 1} to {step}, trained again, end in another state: "
        f"{', '.join(which)} at step {step} "
        f"({'none' if found is None else str(found['sha256'])[:12]}, "
        f"{str(told['sha256'])[:12]} is told)"
    )
    if case.is_unknown(training.made):
        why = f"{name}: {what}; no record tells where it was made"
        return Findings(not_comparable=(why,))
    return Findings(bad=(Finding(name, what),))
