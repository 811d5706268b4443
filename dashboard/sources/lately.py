"""What runs now, what ran in the last hours, what is stale, broken or alarming."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import streamlit as st

from dashboard.sources.workspace import remembered, workspace
from uni_moe.artifacts import Layout, read_json
from uni_moe.records import ContractReport
from uni_moe.registry import lately
from uni_moe.registry.lately import Alarm, Lately, Progress
from uni_moe.registry.staleness import Staleness, staleness_by_cards

_MINUTE_S, _BREATH_S = 60.0, 1.0
_MOST = 20  # runs whose events are looked at, and failures that are listed
_DAYS = 7


@dataclass(frozen=True)
class Contract:
    """The verdict of the data contract over today's samples."""

    name: str
    version: int
    kept: bool
    breaches: tuple[str, ...]
    refused: int


def open_runs() -> list[Lately]:
    """Return the runs that are not known to have ended, newest first, as their folders tell now."""
    return _open(str(workspace().root))


def progress(run: str) -> Progress:
    """Return how far one of the open runs is."""
    return lately.progress(workspace(), run)


def outcomes(hours: float = 24.0) -> dict[str, int]:
    """Return how many of the runs that began in the last hours ended how, or have not yet."""
    since = _since(hours)
    found = Counter(_outcomes(since))
    found.update(run.status for run in open_runs() if run.started >= since)
    return dict(found)


def troubles() -> list[Lately]:
    """Return the runs of the last days that failed or died, newest first."""
    since = _since(_DAYS * 24)
    told = [one for one in open_runs() if one.status in ("failed", "died") and one.started >= since]
    found = [*told, *_failures(since, _MOST)]
    return sorted(found, key=lambda one: one.started, reverse=True)[:_MOST]


def alarms(most: int = _MOST) -> list[Alarm]:
    """Return the alarms of the last runs of the last days, the newest run's first."""
    since = _since(_DAYS * 24)
    runs = [*(one for one in open_runs() if one.started >= since), *_last_runs(since, _MOST)]
    newest = sorted(runs, key=lambda one: one.started, reverse=True)[:_MOST]
    return lately.alarms(workspace(), newest, most)


def stale() -> Staleness:
    """Return what cards alone tell to be stale; looked at anew once a minute at most."""
    return _stale(_minute())


def contract() -> Contract | None:
    """Return the contract's verdict over today's samples; None where there is none to read."""
    return _contract(_minute())


@st.cache_data(ttl=_BREATH_S, max_entries=4, show_spinner=False)
def _open(root: str) -> list[Lately]:
    """Look into the folders once for all parts of a page."""
    return lately.open_runs(Layout(Path(root)), _ended())


@remembered
def _ended(layout: Layout) -> frozenset[str]:
    return lately.ended_runs(layout)


@remembered
def _outcomes(layout: Layout, since: str) -> dict[str, int]:
    return lately.outcomes(layout, since)


@remembered
def _failures(layout: Layout, since: str, most: int) -> list[Lately]:
    return lately.failures(layout, since, most)


@remembered
def _last_runs(layout: Layout, since: str, most: int) -> list[Lately]:
    return lately.last_runs(layout, since, most)


@remembered
def _stale(layout: Layout, minute: int) -> Staleness:
    del minute  # part of the key alone: folders below artifacts/ change unseen
    return staleness_by_cards(layout)


@remembered
def _contract(layout: Layout, minute: int) -> Contract | None:
    del minute
    try:
        found = ContractReport.from_json(read_json(layout.contract_report / "report.json"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    refused = sum(one.quarantined for one in found.sets)
    return Contract(found.contract, found.version, found.kept, tuple(found.breaches), refused)


def _minute() -> int:
    return math.floor(time.time() / _MINUTE_S)


def _since(hours: float) -> str:
    """Return a moment in the past, to the minute, so that answers are kept for one."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    return (now - timedelta(hours=hours)).isoformat()
