"""What must run and why: a pure reading of the graph and of one status call."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from uni_moe.changes import ABSENT, changes

MOST_REASONS = 3
CODE = (".py", ".c", ".h")
LONGEST_VALUE = 60  # letters of a param's value that a reason shows
LETTERS_AHEAD = 20  # of them, what is the same before the first difference
TRAINS = ("foundation", "align", "experts", "tune")  # stages that take memory for a network
NEVER_RAN = "it has not run in this workspace"
_OUTS = {"deleted": "missing", "not in cache": "not in DVC's cache"}  # dvc's words and ours
Status = Mapping[str, Sequence[Any]]  # what dvc says of each changed stage


@dataclass(frozen=True)
class PlannedStage:
    """A stage that must run, or that follows one that must.

    `reasons` says what changed. Without reasons of its own a stage only follows others, and is
    passed over when their results turn out to be the same. `after` names the planned stages that
    must end first. `abreast` says how many planned stages that train may run at once.
    """

    name: str
    reasons: tuple[str, ...]
    after: tuple[str, ...]
    abreast: int = 1

    @property
    def why(self) -> str:
        """The reasons in one line; without any, the stages whose results it follows."""
        follows = f"because {' and '.join(_few(self.after))} {_runs(self.after)}"
        return "; ".join(self.reasons) or follows


@dataclass(frozen=True)
class Plan:
    """The stages to run, in an order that keeps every dependency; `fresh` counts the others."""

    stages: tuple[PlannedStage, ...]
    fresh: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing has to run."""
        return not self.stages

    def text(self) -> str:
        """Return the plan for a person."""
        if self.empty:
            return f"Nothing has to run: all {len(self.fresh)} stages are up to date."
        lines = [f"{len(self.stages)} stages to run, {len(self.fresh)} up to date:"]
        lines += [f"  {stage.name:20} {stage.why}" for stage in self.stages]
        if self.fresh:
            lines.append(f"  not run: {', '.join(self.fresh)}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON object."""
        return {
            "stages": [
                {"name": s.name, "reasons": list(s.reasons), "after": list(s.after)}
                for s in self.stages
            ],
            "fresh": list(self.fresh),
        }


def make_plan(
    parents: Mapping[str, Iterable[str]],
    status: Status,
    *,
    changes: Mapping[str, Sequence[str]] | None = None,
    never_run: Container[str] = (),
) -> Plan:
    """Plan the changed stages and everything that follows from them.

    Args:
        parents: stage -> the stages it depends on, for every stage of the graph.
        status: what dvc says of the stages that changed.
        changes: stage -> its params that changed, from what to what.
        never_run: stages that have not ended here yet.
    """
    order = _sorted(parents)
    planned: dict[str, PlannedStage] = {}
    for name in order:
        after = tuple(sorted(parent for parent in parents[name] if parent in planned))
        reasons = _reasons(status.get(name, ()), (changes or {}).get(name, ()), after=bool(after))
        if name in never_run:
            reasons = [NEVER_RAN]
        if reasons or after:
            planned[name] = PlannedStage(name, tuple(reasons), after)
    fresh = tuple(name for name in order if name not in planned)
    abreast = most_abreast({stage.name: stage.after for stage in planned.values()})
    return Plan(tuple(replace(stage, abreast=abreast) for stage in planned.values()), fresh)


def most_abreast(after: Mapping[str, Sequence[str]]) -> int:
    """Return how many stages that train may run at once, where none waits for another.

    They are as many as chains of stages are needed to hold them all (Dilworth's theorem), which is
    their number less the stages that can be chained, each behind another one.

    Args:
        after: stage -> the stages that must end first, in an order that keeps that.
    """
    before: dict[str, set[str]] = {}
    for name, waits in after.items():
        before[name] = set(waits).union(*(before[one] for one in waits))
    trains = [name for name in after if name.partition("@")[0] in TRAINS]
    chained: dict[str, str] = {}

    def chain(name: str, tried: set[str]) -> bool:
        for later in trains:
            if name in before[later] and later not in tried:
                tried.add(later)
                if later not in chained or chain(chained[later], tried):
                    chained[later] = name
                    return True
        return False

    return max(1, len(trains) - sum(chain(name, set()) for name in trains))


def param_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say which params changed, from what to what: leaves of sections, by their full keys."""
    return [
        f"{one.key} {_change(_value(one.before), _value(one.after))}"
        for one in changes(before, now)
    ]


def _value(value: object) -> str:
    return "absent" if value is ABSENT else json.dumps(value, ensure_ascii=False, default=str)


def _change(before: str, now: str) -> str:
    """Say a change in so many letters that what differs is among them."""
    start = 0
    if max(len(before), len(now)) > LONGEST_VALUE:
        letters = enumerate(zip_longest(before, now))
        first = next((at for at, (old, new) in letters if old != new), 0)
        start = max(0, first - LETTERS_AHEAD)
    return f"{_part(before, start)} -> {_part(now, start)}"


def _part(text: str, start: int) -> str:
    end = start + LONGEST_VALUE
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _sorted(parents: Mapping[str, Iterable[str]]) -> list[str]:
    done: list[str] = []
    waiting = {name: set(of) for name, of in parents.items()}
    while waiting:
        ready = sorted(name for name, of in waiting.items() if of <= set(done))
        assert ready, "dvc.yaml has a cycle"
        done += ready
        for name in ready:
            del waiting[name]
    return done


def _reasons(entries: Sequence[Any], changes: Sequence[str], *, after: bool) -> list[str]:
    """Turn dvc's words into ours. Inputs that a planned stage will make anew are no reason."""
    found: dict[str, list[str]] = {"code": [], "params": [], "data": [], "outs": [], "other": []}
    for entry in entries:
        if isinstance(entry, str):
            found["other"].append(entry)
            continue
        for path, change in entry.get("changed deps", {}).items():
            _sort_in(found, path, change, after=after)
        found["outs"] += [
            f"its output {path} is {_OUTS.get(change, change)}"
            for path, change in entry.get("changed outs", {}).items()
        ]
    params = changes or found["params"]
    return [
        *found["outs"][:1],
        *found["data"],
        *(f"params: {', '.join(_few(params))}" for _ in found["params"][:1]),
        *(f"code: {', '.join(_few(found['code']))}" for _ in found["code"][:1]),
        *found["other"],
    ][:MOST_REASONS]


def _sort_in(found: dict[str, list[str]], path: str, change: object, *, after: bool) -> None:
    """Put one changed dependency under what it is."""
    if isinstance(change, Mapping):
        found["params"] += list(change)
    elif path == "params.yaml":
        found["params"].append(path)
    elif path.endswith(CODE):
        found["code"].append(path)
    elif not (after and path.startswith("artifacts/")):
        found["data"].append(f"{path} is {change}")


def _runs(names: Sequence[str]) -> str:
    return "runs" if len(names) == 1 else "run"


def _few(names: Sequence[str]) -> list[str]:
    rest = len(names) - MOST_REASONS
    return [*names[:MOST_REASONS], *([f"{rest} more"] if rest > 0 else [])]
