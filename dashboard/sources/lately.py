"""What runs now, what ran in the last hours, what is stale, broken or alarming."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta

import streamlit as st

from dashboard.sources import runs
from dashboard.sources.workspace import remembered, workspace
from uni_moe.artifacts import Layout
from uni_moe.records import ContractReport
from uni_moe.registry import run_ends
from uni_moe.registry.cards import contract_report
from uni_moe.registry.read import RunFilter, RunLine, RunOrder, RunPage
from uni_moe.registry.run_ends import Alarm, Progress
from uni_moe.registry.staleness import Staleness, staleness_by_cards

_MINUTE_S, _BREATH_S = 60.0, 1.0
LOOKED_AT = 20  # runs whose alarms are sought
DAYS = 7
_NEWEST = RunOrder()


def fresh() -> runs.Fresh:
    """Return what folders say beyond the index, looked at once for all parts of a page."""
    return _fresh(str(workspace().root))


def running() -> list[RunLine]:
    """Return the runs that are at work, newest first."""
    found = [one for one in fresh().lines if one.status == "running"]
    return sorted(found, key=lambda one: one.started, reverse=True)


def progress(run: str) -> Progress:
    """Return how far one of the open runs is."""
    return run_ends.progress(workspace(), run)


def outcomes(hours: float = 24.0) -> dict[str, int]:
    """Return how many of the runs that began in the last hours ended how, or have not yet."""
    return runs.counts(RunFilter(since=_since(hours)), fresh().lines)


def troubles(status: str) -> RunPage:
    """Return how many runs of the last days failed, or died, and the newest of them."""
    return _page(RunFilter(status=status, since=_since(DAYS * 24)))


def alarms() -> list[Alarm]:
    """Return the alarms of the last runs of the last days, the newest run's first."""
    newest = _page(RunFilter(since=_since(DAYS * 24))).lines[:LOOKED_AT]
    return run_ends.alarms(workspace(), newest, LOOKED_AT)


def stale() -> Staleness:
    """Return what cards alone tell to be stale; looked at anew once a minute at most."""
    return _stale(_minute())


def contract() -> ContractReport | None:
    """Return the contract's verdict over today's samples; None where there is none.

    Raises:
        LineageError: its report is there and cannot be read.
    """
    return _contract(_minute())


def _page(wanted: RunFilter) -> RunPage:
    return runs.page(wanted, fresh().lines, _NEWEST, 1)


@st.cache_resource(ttl=_BREATH_S, max_entries=4, show_spinner=False)
def _fresh(root: str) -> runs.Fresh:
    del root  # the key alone; the answer is frozen, and shared
    return runs.fresh()


@remembered
def _stale(layout: Layout, minute: int) -> Staleness:
    del minute  # part of the key alone: folders below artifacts/ change unseen
    return staleness_by_cards(layout)


@remembered
def _contract(layout: Layout, minute: int) -> ContractReport | None:
    del minute
    return contract_report(layout.contract_report)


def _minute() -> int:
    return math.floor(time.time() / _MINUTE_S)


def _since(hours: float) -> str:
    """Return a moment in the past, to the minute, so that answers are kept for one."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    return (now - timedelta(hours=hours)).isoformat()
