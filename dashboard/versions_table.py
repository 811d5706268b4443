"""The parts of the page Models about all versions: the table, the history, who was live when."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import streamlit as st

from dashboard import charts_models
from dashboard.choosing import chosen_row
from dashboard.exams import mean_of
from dashboard.showing import chart, told
from dashboard.site import asked, link
from dashboard.sources import audit, versions
from dashboard.sources.evaluation import scores_of
from dashboard.sources.models import models, reigns
from dashboard.words import ABSENT, plain, short, when
from uni_moe.registry.live import Champion
from uni_moe.registry.read import Version

_MOST_REIGNS = 30
_ROW_PX, _MOST_ROWS = 35, 12


def live_on() -> None:
    """Let a day be chosen, and show who was the champion then."""
    st.subheader("Live on a date", anchor=False)
    field, answer = st.columns([1, 4], vertical_alignment="bottom")
    moment = asked("at")
    with field:
        day: date | None = st.date_input(
            "Day (UTC)",
            value=None,
            key="at",
            bind="query-params",
            format="YYYY-MM-DD",
            min_value=date(2000, 1, 1),
            max_value=date(2200, 1, 1),
        )
    with answer, told():
        if day is not None:
            _reigned(day.isoformat())
        elif moment is not None:
            st.text("The address names no day: choose one, as 2026-03-31.")
        else:
            st.text("Choose a day to see which version was the champion then.")


def _reigned(at: str) -> None:
    found = versions.live_at(at).champions
    if not found:
        st.text(f"No model was the champion on {at}.")
    for one in found:
        _champion(one)


def _champion(one: Champion) -> None:
    name = "A model whose registration is gone" if one.number is None else f"Version {one.number}"
    until = "today" if one.until is None else when(one.until)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.text(f"{name} ({short(one.model)}) was the champion from {when(one.since)} to {until}.")
        if one.number is not None:
            link("models", f"Version {one.number}", version=one.number)


def all_versions() -> None:
    """Show every version in a table; a row that is chosen goes into the address."""
    st.subheader("All versions", anchor=False)
    st.caption("Choose a row to see its evidence above.")
    rows = _rows()
    chosen_row(
        "all-versions",
        rows,
        [row["version"] for row in rows],
        lambda number: st.query_params.update(version=str(number)),
        height=_ROW_PX * (min(len(rows), _MOST_ROWS) + 1) + 3,
        formats={"mean score": st.column_config.NumberColumn(format="%.1f %%")},
        alt="All registered versions, newest first: verdict, mean score, when, who and why.",
    )


def _rows() -> list[dict[str, Any]]:
    known, gone = models(), versions.removed()
    found = scores_of(tuple(one.report for one in known), "modality")
    return [
        _row(one, said, mean_of(found.get(one.report, {})), gone)
        for one, said in zip(reversed(known), reversed(versions.standings(known)), strict=True)
    ]


def _row(one: Version, standing: str, mean: float | None, gone: dict[str, str]) -> dict[str, Any]:
    return {
        "version": one.number,
        "standing": standing,
        "mean score": None if mean is None else 100 * mean,
        "registered": when(one.at),
        "by": one.who,
        "why": one.reason,
        "weights": weights(one, gone),
        "model": short(one.model),
    }


def weights(one: Version, gone: dict[str, str]) -> str:
    """Say where the weights of a version are."""
    return "here" if one.model_folder.is_dir() else gone.get(one.model, "kept elsewhere")


def history() -> None:
    """Show who was the champion from when until when."""
    found = reigns()
    st.subheader("Champions", anchor=False)
    if not found:
        st.text("No model was the champion yet.")
        return
    deciders = audit.deciders()
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S+00:00}"
    rows = []
    for one in found[-_MOST_REIGNS:]:
        entry = deciders.get(one.run)
        rows.append(
            {
                "name": f"version {one.number}" if one.number else short(one.model),
                "since": one.since,
                "until": one.until or now,
                "how": ABSENT if entry is None else entry.event,
                "by": ABSENT if entry is None else entry.who,
                "why": ABSENT if entry is None else entry.why,
            }
        )
    if len(found) > _MOST_REIGNS:
        st.caption(f"The last {_MOST_REIGNS} of {len(found)}.")
    chart(
        charts_models.reigns(rows),
        rows,
        title="Who was the champion from when until when (UTC)",
        look_for="A bar is a reign, and the mark at its beginning says how it began. Look for "
        "waivers, which overruled the gate, and for rollbacks.",
        key="reigns",
    )
    newest = rows[-1]
    st.caption(plain(f"The last change: {newest['how']} by {newest['by']}: {newest['why']}"))
