"""`schedule.yaml`: when a workspace is retrained by itself, and who does it.

It lies in the workspace like `machine.yaml`: no stage reads it, so it changes no hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from zoneinfo import available_timezones

from uni_moe.config_building import build_file

FILE = "schedule.yaml"
_NOT_IN_NAMES = "/%&<>"  # of Prefect's


@dataclass(frozen=True)
class Pool:
    """The Prefect work pool that runs retrainings.

    `name` None is a pool of this workspace alone: another one's workers may be on another host,
    where its folder is not. `type` is Prefect's: `process` works on this machine; for another one,
    its workers are started where they are. `at_once` is how many runs it has at work. `environment`
    is what they find in theirs.
    """

    name: str | None = None
    type: str = "process"
    at_once: int = 2
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Schedule:
    """When a retraining begins.

    `name` is what a Prefect server calls this workspace; None takes the name of its folder.
    `cron` says when it is looked whether anything is new; None never does. `watch` names what
    starts one as soon as it has changed and stood still for `settle_s`: the raw data, or the
    contract. It is looked at every `watch_every_s`.
    """

    name: str | None = None
    cron: str | None = None
    timezone: str = "UTC"
    watch: tuple[Literal["data", "contract"], ...] = ()
    watch_every_s: float = 60.0
    settle_s: float = 60.0
    pool: Pool = field(default_factory=Pool)


def name_of(schedule: Schedule, root: Path) -> str:
    """Return what a Prefect server calls a workspace."""
    return schedule.name or root.resolve().name


def pool_of(schedule: Schedule, root: Path) -> str:
    """Return the name of the pool that a workspace's runs wait in."""
    return schedule.pool.name or f"uni-moe@{name_of(schedule, root)}"


def load_schedule(root: Path) -> Schedule:
    """Read a workspace's schedule; without a file nothing begins by itself.

    Raises:
        ConfigError: it is not YAML, or lists every key that is wrong.
    """
    path = root / FILE
    if not path.is_file():
        return Schedule()
    return build_file(Schedule, path, _rules, chapter="By schedule")


def _rules(schedule: Schedule) -> list[str]:
    told = {
        f"cron: {schedule.cron!r} is no line of five fields, as in `0 3 * * *`": (
            schedule.cron is not None and len(schedule.cron.split()) != 5
        ),
        f"timezone: {schedule.timezone!r} is unknown": (
            schedule.timezone not in available_timezones()
        ),
        "watch_every_s: must be at least 1": schedule.watch_every_s < 1,
        "settle_s: must be at least 0": schedule.settle_s < 0,
        "pool.at_once: must be at least 1": schedule.pool.at_once < 1,
        "pool.name: must not be empty": schedule.pool.name == "",
        f"name: {schedule.name!r} must not be empty, nor have one of {_NOT_IN_NAMES}": (
            schedule.name is not None
            and (not schedule.name or any(sign in schedule.name for sign in _NOT_IN_NAMES))
        ),
    }
    return [problem for problem, is_so in told.items() if is_so]
