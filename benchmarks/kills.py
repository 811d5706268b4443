"""Whether a stage that is killed ends in the bytes of an undisturbed one, for each kill.

`kill -9` of all processes of a stage at once, once in every stage and the others at instants drawn
over all of them in proportion to what they take, and while states and artifacts are written; in one
process, and the phases in two. After each kill the stage runs to its end. Weights are held together
by the hashes in their cards. A power cut may also lose what the disk was told to keep: that is not
covered.
"""

from __future__ import annotations

import argparse
import copy
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.answers import Case, Number, at_most
from benchmarks.killing import (
    AT_ANY_TIME,
    WRITING,
    Kill,
    Outcome,
    When,
    disturbed,
    run_to_the_end,
)
from benchmarks.setup import Setup
from uni_moe.cli_stages import PHASES, STAGES
from uni_moe.progress import progress
from uni_moe.workspace import make_workspace

Place = tuple[str, int]
"""A stage and on how many processes it runs."""
TRAININGS = ("foundation", *PHASES)
_STEPS, _BATCH = 6, 2
_SHARES = {True: (4, 4, 2), False: (7, 0, 3)}  # at any time, in a state, in an artifact


def add_options(parser: argparse.ArgumentParser) -> None:
    """How often, and where it is tried."""
    parser.add_argument("--count", type=int, default=100, help="kills; default: %(default)s")
    parser.add_argument("--folder", type=Path, help="keep the workspaces here")


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Run all stages undisturbed, then kill them."""
    with tempfile.TemporaryDirectory() as folder:
        root = options.folder or Path(folder)
        roots = {processes: root / f"on-{processes}" for processes in (1, 2)}
        lasts = undisturbed(roots)
        planned = draw(options.count, setup.seed, lasts)
        outcomes = [
            disturbed(roots[at[1]], at[0], kills, processes=at[1], lasts_s=lasts[at])
            for at, kills in progress(planned.items(), title="stages that are killed")
        ]
    yield case_of(outcomes)


def undisturbed(roots: Mapping[int, Path]) -> dict[Place, float]:
    """Run all stages on one process and the phases on two; return the seconds that each takes."""
    one, two = roots[1], roots[2]
    make_workspace(one, "smoke")
    data = yaml.safe_load((one / "params.yaml").read_text(encoding="utf-8"))
    (one / "params.yaml").write_text(yaml.safe_dump(smallest(data)), encoding="utf-8")
    lasts: dict[Place, float] = {}
    for stage in progress(names(STAGES), title="on one process"):
        lasts[stage, 1] = run_to_the_end(one, stage, 1)
    shutil.copytree(one, two)
    for stage in progress(names((*PHASES[:2], "assemble", *PHASES[2:])), title="on two"):
        spread = 2 if stage.partition("@")[0] in PHASES else 1
        lasts[stage, spread] = run_to_the_end(two, stage, spread)
    return lasts


def names(stages: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """Return the stages with their items, in an order that can run."""
    return [
        f"{stage}@{item}" if item else stage
        for stage in stages
        for item in STAGES[stage][1] or ("",)
    ]


def smallest(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return params with few samples and a training state after every step."""
    data = copy.deepcopy(dict(params))
    data["sources"][0] |= {
        "train": {"text": 40, "image": 6, "video": 4, "audio": 4, "speech": 6},
        "validation": 1,
        "test": 2,
    }
    trainings = [part["tiny"] for part in data["foundation"].values()]
    for plan in (*trainings, *data["align"].values(), *data["experts"].values(), data["tune"]):
        plan |= {"steps": _STEPS, "batch_size": _BATCH, "save_every_steps": 1}
    data["evaluate"] |= {"max_new_tokens": 2, "max_items": 2, "knock_out_items": 1}
    return data


def draw(count: int, seed: int, lasts: Mapping[Place, float]) -> dict[Place, list[Kill]]:
    """Draw where and when is killed, every stage at least once: a pure function of all that."""
    dice, found = random.Random(seed), dict[Place, list[Kill]]()
    kinds: list[When] = [AT_ANY_TIME, *WRITING]
    first = list(lasts)[:count]
    for at in [*first, *dice.choices(list(lasts), list(lasts.values()), k=count - len(first))]:
        is_training = at[0].partition("@")[0] in TRAININGS
        (when,) = dice.choices(kinds, _SHARES[is_training])
        found.setdefault(at, []).append(Kill(when, dice.random()))
    return {at: found[at] for at in lasts if at in found}


def case_of(outcomes: Sequence[Outcome]) -> Case:
    """Hold what came out against the bar: no kill leads to other bytes."""
    numbers = []
    for processes in sorted({one.processes for one in outcomes}):
        own = [one for one in outcomes if one.processes == processes]
        kills = sum(len(one.killed) for one in own)
        facts: dict[str, Any] = {
            "kills": kills,
            "seconds_a_kill": sum(one.seconds for one in own) / max(1, kills),
            "when": Counter(when for one in own for when in one.killed),
            "left_a_draft": sum(one.drafts for one in own),
            "went_on_from_a_state": sum(one.went_on for one in own),
            "came_too_late": sum(one.too_late for one in own),
            "other_bytes": [one.stage for one in own if one.others],
        }
        what = f"{kills} kills of {len(own)} stages on {processes}: ends in other bytes"
        others = float(sum(one.others for one in own))
        numbers.append(Number(what, others, bar=at_most(0.0), facts=facts))
        missed = float(sum(one.missed for one in own))
        numbers.append(Number(f"kills on {processes} that never struck", missed, bar=at_most(0.0)))
    return Case("stages killed by kill -9, smoke recipe at its smallest", numbers=numbers)
