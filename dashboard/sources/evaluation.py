"""Scores of versions, what each item was answered, and the samples that were asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern  # names stand in every line, and in memory once
from typing import Any, BinaryIO, Literal

import streamlit as st

from dashboard.exams import Difference, Item, Pair, names_of, pairs_of
from dashboard.exams import chosen as chosen_of
from dashboard.exams import differences as differences_of
from dashboard.sources.workspace import remembered, workspace
from uni_moe.artifacts import Layout
from uni_moe.config import load_params
from uni_moe.errors import LineageError, UniMoeError
from uni_moe.records import MODALITIES, Sample, Score
from uni_moe.registry import read, score_questions
from uni_moe.registry.cards import ANSWERS

_MOST_BYTES = 50_000_000  # of a file of answers: a hundred thousand items
_LONGEST = 200  # letters of why a line cannot be read
_CONFIDENCE, _POWER = 0.95, 0.8  # where no params say others


@remembered
def scores_of(
    layout: Layout, reports: tuple[str, ...], scope: Literal["modality", "task"]
) -> dict[str, dict[str, Score]]:
    """Return report -> modality or task -> score."""
    return score_questions.scores_of(layout, reports, scope)


@remembered
def certainty(layout: Layout) -> tuple[float, float]:
    """Return with which confidence and power the gate of this workspace compares."""
    try:
        gate = load_params(layout.params).gate
    except (UniMoeError, OSError):
        return _CONFIDENCE, _POWER
    return gate.confidence, gate.power


@dataclass(frozen=True)
class Unreadable:
    """A line of a file of answers that tells of no item, and why."""

    file: str
    line: int  # counted from 1
    why: str


@dataclass(frozen=True)
class Exam:
    """Two versions on their items, or one alone; `names` are the modalities and tasks of these.

    `most` is how many items one of them has. `unreadable` are lines that tell of no item.
    """

    pairs: tuple[Pair, ...]
    names: tuple[str, ...]
    most: int
    unreadable: tuple[Unreadable, ...]


def exam(first: read.Version, other: read.Version | None) -> Exam:
    """Return the items that both versions were asked, without the texts.

    Raises:
        LineageError: the answers of one are not here, or too many.
    """
    return _exam(_file(first), None if other is None else _file(other))


def differences(
    first: read.Version, other: read.Version, scope: Literal["modality", "task"]
) -> list[Difference]:
    """Return how the first version differs by modality or by task, the worst first.

    Raises:
        LineageError: the answers of one are not here, or too many.
    """
    return _differences(_file(first), _file(other), scope, certainty())


File = tuple[str, int]
"""Where answers lie, and when they were written: what is kept of them goes with it."""
End = tuple[bool, bool | None] | None
"""Whether the first is right, and the other; None means any end."""


def chosen(
    first: read.Version, other: read.Version | None, name: str | None, end: End
) -> tuple[Pair, ...]:
    """Return the items of a modality or task (None: of all) that ended so."""
    return _chosen(_file(first), None if other is None else _file(other), name, end)


@st.cache_resource(max_entries=16, show_spinner=False)
def _chosen(first: File, other: File | None, name: str | None, end: End) -> tuple[Pair, ...]:
    return tuple(chosen_of(_exam(first, other).pairs, name, end))


# What is kept here is immutable and may be large: it is shared, not copied.
@st.cache_resource(max_entries=4, show_spinner="Reading the answers")
def _exam(first: File, other: File | None) -> Exam:
    mine, broken = _items(*first)
    theirs, more = (None, ()) if other is None else _items(*other)
    pairs = tuple(pairs_of(mine, theirs))
    most = max(len(mine), len(theirs or ()))
    return Exam(pairs, tuple(names_of(pairs)), most, (*broken, *more))


@st.cache_data(max_entries=32, show_spinner=False)
def _differences(
    first: File, other: File, scope: Literal["modality", "task"], certain: tuple[float, float]
) -> list[Difference]:
    return differences_of(_exam(first, other).pairs, scope, *certain)


def _file(version: read.Version) -> File:
    file = version.report_folder / ANSWERS
    try:
        found = file.stat()
    except OSError as error:
        raise LineageError(
            f"The answers of version {version.number} are not here.",
            cause="its report was removed, is kept elsewhere, or never had them.",
            remedy="`uni-moe pull` brings it, `uni-moe judge` judges the model again.",
        ) from error
    if found.st_size > _MOST_BYTES:
        raise LineageError(
            f"The answers of version {version.number} fill {found.st_size:,} bytes.",
            cause=f"a page looks through at most {_MOST_BYTES:,}.",
            remedy=f"read {ANSWERS} in its report's folder with a program of yours.",
        )
    return str(file), found.st_mtime_ns


@st.cache_resource(max_entries=4, show_spinner=False)
def _items(file: str, stamp: int) -> tuple[list[Item], tuple[Unreadable, ...]]:
    del stamp  # part of the key alone
    found, broken, at = [], [], 0
    place = Path(file)
    with place.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            item = _item(line, at)
            if isinstance(item, Item):
                found.append(item)
            else:
                name = f"{place.parents[1].name[:12]}/{place.parent.name}"
                broken.append(Unreadable(name, number, item))
            at += len(line)
    return found, tuple(broken)


def _item(line: bytes, at: int) -> Item | str:
    """Return what a line tells of, or why it tells of nothing."""
    try:
        row = json.loads(line)
        return Item(
            str(row["id"]),
            str(row["key"]),
            intern(str(row["modality"])),
            intern(str(row.get("task") or "")),
            intern(str(row["group"])) if row.get("group") else None,
            float(row["score"]),
            at,
        )
    except KeyError as error:
        return f"it lacks {error}"
    except (ValueError, TypeError, AttributeError) as error:
        return str(error)[:_LONGEST]


def answers(version: read.Version, chosen: Sequence[Item]) -> list[dict[str, Any]]:
    """Return the whole lines of some items, as they were judged; nothing of one that is gone."""
    found = []
    with (version.report_folder / ANSWERS).open("rb") as lines:
        for item in chosen:
            lines.seek(item.at)
            try:
                row = json.loads(lines.readline())
            except ValueError:
                row = None
            found.append(row if isinstance(row, dict) else {})
    return found


def sample(item: Item, split: str = "test") -> Sample | None:
    """Return the sample that an item asks about; None where the corpus holds it no more.

    Lines of a corpus are sorted by key, so a few of them are read.
    """
    if item.modality not in MODALITIES:
        return None
    file = workspace().corpus(item.modality) / f"{split}.jsonl"
    try:
        found = _searched(file, item.key)
        one = None if found is None else Sample.from_json(found)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return one if one is not None and one.id == item.id else None


def _searched(file: Path, key: str) -> dict[str, Any] | None:
    """Return the line with a key, by halving the file."""
    with file.open("rb") as lines:
        low, high = 0, file.stat().st_size
        while low < high:
            middle = (low + high) // 2
            row = _line_from(lines, middle)
            if row is not None and str(row["key"]) < key:
                low = middle + 1
            else:
                high = middle
        row = _line_from(lines, low)
    return row if row is not None and row["key"] == key else None


def _line_from(lines: BinaryIO, at: int) -> dict[str, Any] | None:
    """Return the first line that begins at a byte or behind it; None at the end."""
    lines.seek(max(0, at - 1))
    if at:
        lines.readline()  # ends a line that began before
    line = lines.readline()
    return dict(json.loads(line)) if line else None
