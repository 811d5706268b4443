"""Runs: pages of them, lines that folders know better than the index, one run's record."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.sources.workspace import remembered, stamp, workspace
from uni_moe.artifacts import Layout
from uni_moe.errors import LineageError
from uni_moe.output import OUTPUT
from uni_moe.registry import read, run_lines, run_questions, spans
from uni_moe.registry.cards import run_record
from uni_moe.runs import HEARTBEATS, METRICS, RECORD

_MOST_FRESH = 500  # folders that are looked into for a page
_QUIET_S = 3600.0  # a folder that was still so long changes no more between two looks
SAID_LINES = 200
_SAID_BYTES, _LONGEST = 1 << 16, 400
AROUND = 60  # folders before and after a run in which its flow's other stages are sought
_WATCHED = (RECORD, HEARTBEATS, METRICS)


@dataclass(frozen=True)
class Fresh:
    """What folders say beyond the index; `left_out` are too many, `broken` cannot be read."""

    lines: tuple[read.RunLine, ...]
    unknown: int
    left_out: int
    broken: tuple[str, ...]


@dataclass(frozen=True)
class _Folders:
    """The names of run folders, oldest first, and to look one up."""

    by_time: tuple[str, ...]
    among: frozenset[str]


def fresh() -> Fresh:
    """Return the lines of runs whose end the index does not know, as they are now."""
    found = unsettled()
    layout = workspace()
    lines, broken = [], []
    for run in found.runs[:_MOST_FRESH]:
        try:
            line = _line(layout, run)
        except LineageError:
            broken.append(run)
        else:
            lines += [] if line is None else [line]
    left_out = max(0, len(found.runs) - _MOST_FRESH)
    return Fresh(tuple(lines), found.unknown, left_out, tuple(broken))


@remembered
def unsettled(layout: Layout) -> run_questions.Unsettled:
    """Return the runs whose folders know more than the index."""
    return run_questions.unsettled(layout)


@remembered
def page(
    layout: Layout,
    wanted: read.RunFilter,
    lines: tuple[read.RunLine, ...],
    order: read.RunOrder,
    number: int,
) -> read.RunPage:
    """Return a page of runs, with these lines in the places of the index's own."""
    return read.run_page(layout, wanted, lines, order, number)


@remembered
def choices(layout: Layout) -> run_questions.RunChoices:
    """Return the stages and the people of all runs that the index knows."""
    return read.run_choices(layout)


def since(told: str | None) -> str | None:
    """Return the first moment that is meant; None where nothing was told.

    Raises:
        ConfigError: it is no moment.
    """
    return spans.since_of(told) if told else None


def until(told: str | None) -> str | None:
    """Return the last moment that is meant; None where nothing was told.

    Raises:
        ConfigError: it is no moment.
    """
    return spans.until_of(told) if told else None


@remembered
def counts(
    layout: Layout, wanted: read.RunFilter, lines: tuple[read.RunLine, ...]
) -> dict[str, int]:
    """Return how many runs have which status, with these lines in the places of the index's."""
    return run_questions.run_counts(layout, wanted, lines)


def has_folder(run: str) -> bool:
    """Say whether a run's folder is here."""
    return run in _folders().among


def _folders() -> _Folders:
    layout = workspace()
    return _listed(str(layout.root), stamp(layout.runs))


@st.cache_resource(max_entries=4, show_spinner=False)
def _listed(root: str, now: tuple[int, int] | None) -> _Folders:
    """List the run folders once for each state of runs/; frozen, the answer is shared."""
    del now
    names = tuple(run_lines.folder_names(Layout(Path(root))))
    return _Folders(names, frozenset(names))


@remembered
def in_index(layout: Layout, run: str) -> dict[str, Any] | None:
    """Return a run's record as far as the index holds it, None where it does not know the run."""
    return run_questions.run_row(layout, run)


def record(run: str) -> dict[str, Any] | None:
    """Return a run's record of this moment: of its folder, or else of the index; None if unknown.

    Only a name that is listed becomes a path.

    Raises:
        LineageError: the record in the folder cannot be read.
    """
    if has_folder(run):
        told = run_record(workspace().runs / run)
        if told is not None:
            return told
    return in_index(run)


def output(run: str) -> list[str]:
    """Return the last lines of what a stage said, each cut; none where nothing was kept.

    Only a name that is listed becomes a path.
    """
    if not has_folder(run):
        return []
    try:
        with (workspace().runs / run / OUTPUT).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _SAID_BYTES))
            lines = file.read(_SAID_BYTES).decode("utf-8", "replace").split("\n")
    except OSError:
        return []
    whole = lines[1:] or lines if size > _SAID_BYTES else lines  # the first one may begin before
    return [line[:_LONGEST] for line in whole if line.strip()][-SAID_LINES:]


def parameters(record: dict[str, Any]) -> dict[str, Any]:
    """Return a run's parameters: its own, and those on the cards of what it made."""
    made = {str(name): str(one) for name, one in (record.get("artifacts") or {}).items()}
    return _params_of(tuple(sorted(made.items()))) | dict(record.get("params") or {})


@remembered
def _params_of(layout: Layout, artifacts: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return run_questions.params_of(layout, dict(artifacts))


def flow(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the records of the same flow run, oldest first: its neighbours by time are asked."""
    own, around = record.get("flow_run"), _folders().by_time
    if own is None or not has_folder(record["id"]):
        return [record]
    place = bisect_left(around, record["id"])
    near = around[max(0, place - AROUND) : place + AROUND + 1]
    found = (_told_of(workspace(), name) for name in near)
    return [one for one in found if one is not None and one.get("flow_run") == own]


def _told_of(layout: Layout, run: str) -> dict[str, Any] | None:
    folder = layout.runs / run
    try:
        if _is_quiet(folder):
            return _quiet_record(folder, _stamps(folder))
        return _small(run_record(folder))
    except LineageError:
        return None


def _line(layout: Layout, run: str) -> read.RunLine | None:
    folder = layout.runs / run
    if _is_quiet(folder):
        return _quiet_line(layout, run, _stamps(folder))
    return run_lines.line_of(layout, run)


@lru_cache(maxsize=2 * _MOST_FRESH)
def _quiet_line(layout: Layout, run: str, stamps: tuple[int, ...]) -> read.RunLine | None:
    del stamps  # part of the key alone
    return run_lines.line_of(layout, run)


@lru_cache(maxsize=2 * _MOST_FRESH)
def _quiet_record(folder: Path, stamps: tuple[int, ...]) -> dict[str, Any] | None:
    del stamps  # part of the key alone
    return _small(run_record(folder))


def _small(record: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what a bar of stages needs of a record."""
    wanted = ("id", "stage", "status", "started", "ended", "duration_s", "flow_run")
    return None if record is None else {name: record.get(name) for name in wanted}


def _stamps(folder: Path) -> tuple[int, ...]:
    found = []
    for name in _WATCHED:
        try:
            found.append(os.stat(folder / name).st_mtime_ns)  # noqa: PTH116 - measured: many files
        except OSError:
            found.append(0)
    return tuple(found)


def _is_quiet(folder: Path) -> bool:
    return time.time() - max(_stamps(folder)) / 1e9 > _QUIET_S
