"""The numbers of a run: from the index where it holds them all, or else from the run's folder."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import streamlit as st

from dashboard.sources import runs
from dashboard.sources.tailing import MOST_KEYS as MOST_KEYS
from dashboard.sources.tailing import Tail as Tail
from dashboard.sources.workspace import remembered, workspace
from uni_moe.artifacts import Layout
from uni_moe.registry import read, run_questions
from uni_moe.registry.metric_tables import TIME as TIME  # the key of a step's time
from uni_moe.registry.read import Point

_TAILS = "tails of run folders"
_MOST_TAILS = 7  # of one visitor: a run that is open, and six that are compared
_NOT_OURS = "router/"
NEARLY_BYTES = 1 << 20  # so much of a file may wait without a word


class Numbers(Protocol):
    """What a run told: its keys, their points, and how many were not finite."""

    @property
    def run(self) -> str:
        """Whose they are."""

    def keys(self) -> list[str]:
        """Return what was told, by name."""

    def points(self, key: str) -> list[Point]:
        """Return the points of a key, a thousand or so that stand for all."""

    def odd(self, key: str) -> dict[str, int]:
        """Return how many numbers of a key were nan, inf or -inf."""


@dataclass(frozen=True)
class Indexed:
    """Numbers that the index holds to their end."""

    run: str

    def keys(self) -> list[str]:
        """Return what was told, by name."""
        return [key for key in _keys(self.run) if not key.startswith(_NOT_OURS)]

    def points(self, key: str) -> list[Point]:
        """Return the points of a key, at most a thousand that stand for all."""
        return _points(self.run, key)

    def odd(self, key: str) -> dict[str, int]:
        """Return how many numbers of a key were nan, inf or -inf."""
        return _odd(self.run, key)


def numbers(run: str, patience_s: float = 0.4) -> Numbers:
    """Return what a known run told; a folder is read on for so long.

    Args:
        run: its name, one that `runs.record` knows.
        patience_s: how long at most.
    """
    if not runs.has_folder(run) or _is_indexed(run):
        return Indexed(run)
    found = tail(run)
    found.read(workspace().runs / run, patience_s)
    return found


def tail(run: str) -> Tail:
    """Return what this visitor has read of a run's folder; only a few runs are kept."""
    tails: OrderedDict[str, Tail] = st.session_state.setdefault(_TAILS, OrderedDict())
    found = tails.setdefault(run, Tail(run))
    tails.move_to_end(run)
    while len(tails) > _MOST_TAILS:
        tails.popitem(last=False)
    return found


def watched(run: str, patience_s: float = 0.4) -> Tail:
    """Return a known run's tail, read on; with the events alone where the index has the numbers."""
    found = tail(run)
    if runs.has_folder(run):
        found.read(workspace().runs / run, patience_s, events_alone=_is_indexed(run))
    return found


def is_part(told: Numbers) -> bool:
    """Say whether a run told more than was read of it yet."""
    return isinstance(told, Tail) and not told.is_whole


@remembered
def _is_indexed(layout: Layout, run: str) -> bool:
    return run_questions.has_all_metrics(layout, run)


@remembered
def _keys(layout: Layout, run: str) -> list[str]:
    return list(read.metric_keys(layout, run))


@remembered
def _points(layout: Layout, run: str, key: str) -> list[Point]:
    return read.curve(layout, run, key)


@remembered
def _odd(layout: Layout, run: str, key: str) -> dict[str, int]:
    return read.not_finite(layout, run, key)
