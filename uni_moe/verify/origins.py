"""Reads under which circumstances artifacts were made, and what the circumstances are here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from uni_moe import platform
from uni_moe.artifacts import Layout
from uni_moe.config import Platform
from uni_moe.machine import TOLD
from uni_moe.registry.cards import all_runs, json_lines
from uni_moe.runs import EVENTS, environment
from uni_moe.verify.comparable import SPREAD, Here, Origin


def origins_in(layout: Layout) -> dict[str, list[Origin]]:
    """Return card id -> the runs that made it, oldest first, as their folders tell."""
    found: dict[str, list[Origin]] = {}
    for folder, record in all_runs(layout):
        made = record.get("artifacts") or {}
        if made:
            origin = _origin(folder, record)
            for card_id in made.values():
                found.setdefault(card_id, []).append(origin)
    return found


def here_for(choice: Platform | None, origin: Origin) -> Here:
    """Return the circumstances here under which a stage would make again what a run made.

    Args:
        choice: how its params let it compute; None of a stage that computes by no routes.
        origin: the run, whose routes are taken where this machine has them.
    """
    now = environment()
    routes = routes_for(choice, origin)
    computed = None if routes is None else {**routes, **platform.machine()}
    return Here(now["python"], now["packages"], computed)


def routes_for(choice: Platform | None, origin: Origin) -> dict[str, Any] | None:
    """Return a run's routes as far as this machine has them, None where it took none."""
    if choice is None:
        return None
    return platform.recall(origin.computed or {}, choice).to_json()


def _origin(folder: Path, record: Mapping[str, Any]) -> Origin:
    told = record.get("environment") or {}
    computed: dict[str, Any] | None = None
    spread, moved = None, dict[str, Any]()
    for event in _events(folder):
        kind = event["event"]
        if kind == "platform":
            computed = {name: one for name, one in event.items() if name not in ("time", "event")}
        elif kind == TOLD:
            spread = {name: event[name] for name in SPREAD if name in event}
        elif kind == "resumed":
            computed = {**(computed or {}), **event.get("routes", {})}
            moved |= event.get("other_machine", {})
    return Origin(
        run=record["id"],
        commit=record.get("commit"),
        python=told.get("python"),
        packages=told.get("packages") or {},
        computed=computed,
        spread=spread,
        moved=moved,
    )


def _events(folder: Path) -> Iterator[Mapping[str, Any]]:
    return (row for row in json_lines(folder / EVENTS) if "event" in row)
