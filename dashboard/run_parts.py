"""What the pages of runs share: a table of runs to choose from, and charts of their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import streamlit as st

from dashboard import charts_runs
from dashboard.curve_rows import STEP, TIME, Gathered, Line, View, gather
from dashboard.metric_groups import Group
from dashboard.showing import chart, live
from dashboard.site import go
from dashboard.sources.curves import MOST_KEYS, Numbers, Tail, is_part, watched
from dashboard.sources.curves import TIME as TIME_KEY
from dashboard.words import ABSENT, lasting, when
from uni_moe.registry.read import RunLine

STATUSES = {
    "running": "▶ running",
    "done": "✓ done",
    "failed": "✗ failed",
    "died": "☠ died",
}
MOST_COMPARED = 6
_READ_ON_S = 1.0
_COMMIT = 10  # letters of it
_HEAD_PX, _ROW_PX, _ROWS_IN_SIGHT = 38, 35, 20


def table(lines: Sequence[RunLine], key: str) -> list[str]:
    """Show runs; a click into a cell opens the run. Return those that are ticked."""
    event = st.dataframe(
        [_row(line) for line in lines],
        hide_index=True,
        height=_HEAD_PX + _ROW_PX * min(max(1, len(lines)), _ROWS_IN_SIGHT),
        key=key,
        on_select="rerun",
        selection_mode=["multi-row", "single-cell"],
        alt="Runs, one a row: when, stage, status, duration, who, why, last loss, commit, error.",
        column_config={
            "last loss": st.column_config.TextColumn(alignment="right"),
            "stage": st.column_config.TextColumn(width=150),
            "why": st.column_config.TextColumn(width="medium"),
            "error": st.column_config.TextColumn(width="medium"),
        },
    )
    chosen: Mapping[str, Any] = event["selection"]
    for place, _ in chosen.get("cells", ()):
        if place < len(lines):
            go("run", run=lines[place].id)
    return [lines[place].id for place in chosen.get("rows", ()) if place < len(lines)]


def _row(line: RunLine) -> dict[str, object]:
    return {
        "when": when(line.started),
        "stage": line.stage,
        "status": STATUSES.get(line.status, line.status),
        "duration": lasting(line.duration_s),
        "who": line.user or ABSENT,
        "why": line.reason or ABSENT,
        "last loss": ABSENT if line.loss is None else f"{line.loss:.4f}",
        "commit": (line.commit or ABSENT)[:_COMMIT],
        "error": line.error or "",
        "run": line.id,
    }


def bounds(told: Iterable[Numbers]) -> None:
    """Say what of these numbers is not drawn, or not yet."""
    all_ = list(told)
    parts = tuple(one.run for one in all_ if is_part(one))
    if parts:
        read_on(parts)
    if any(isinstance(one, Tail) and one.has_more for one in all_):
        st.warning(
            f"Only the first {MOST_KEYS} numbers that a run folder tells are drawn; there are "
            "more. When the run is over, `uni-moe index` brings in all."
        )


@live(_READ_ON_S)
def read_on(names: tuple[str, ...]) -> None:
    """Say how much of what runs told is read, read on, and at the end show the page anew."""
    tails = [watched(name, _READ_ON_S / 2 / len(names)) for name in names]
    if all(tail.is_whole for tail in tails):
        st.rerun()
    size = sum(tail.size for tail in tails)
    share = sum(tail.position for tail in tails) / size
    st.warning(
        f"The curves are not whole yet: {100 * share:.0f} percent of what was told is read. They "
        "are drawn anew when all is.",
        icon=":material/hourglass_top:",
    )


def view() -> View:
    """Show how curves may be looked at, and return what is chosen."""
    by, smooth, log = st.columns([1, 2, 1], vertical_alignment="bottom")
    axis = by.segmented_control(
        "Horizontal axis", [STEP, TIME], default=STEP, required=True, key="x", bind="query-params"
    )
    strength = smooth.slider(
        "Smoothing (0 shows the numbers as they are)",
        0.0,
        0.99,
        0.0,
        0.01,
        key="smooth",
        bind="query-params",
    )
    is_log = log.toggle("Logarithmic scale", key="log", bind="query-params")
    return View(axis or STEP, strength, is_log)


def group_chart(
    group: Group, numbers: Numbers, seen: View, events: Sequence[tuple[int, str, str]]
) -> None:
    """Show a chart of a run: all of its keys that belong into it."""
    keys = [key for key in numbers.keys() if group.has(key)]  # noqa: SIM118 - no mapping
    times = numbers.points(TIME_KEY)
    lines = [Line(group.line_name(key), numbers.points(key), times, group.factor) for key in keys]
    odd = {group.line_name(key): numbers.odd(key) for key in keys}
    curves(gather(lines, seen, events), group, seen, odd, key=f"curve-{group.name}")


def curves(
    found: Gathered, group: Group, seen: View, odd: Mapping[str, Mapping[str, int]], *, key: str
) -> None:
    """Show gathered curves, and what of them cannot be drawn."""
    drawn = charts_runs.curves(
        found, y_title=group.y_title, is_log=seen.is_log, is_smooth=seen.smoothing > 0
    )
    rows = [_number(row, seen) for row in found.rows] + [
        {"curve": one["name"], "step": one["step"], "value": one["kind"]} for one in found.odd
    ]
    chart(drawn, rows, title=group.title, look_for=group.look_for, key=key)
    told = not_drawn(found, odd)
    if told:
        st.text(told)


def not_drawn(found: Gathered, odd: Mapping[str, Mapping[str, int]]) -> str:
    """Return what a chart cannot draw, in sentences; nothing where it draws all."""
    kinds: dict[str, int] = {}
    for counts in odd.values():
        for kind, count in counts.items():
            kinds[kind] = kinds.get(kind, 0) + count
    told = []
    if kinds:
        each = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        told.append(f"Not finite: {each}. They are marked at the lower axis.")
    if found.below_zero:
        told.append(f"{found.below_zero} at or below zero have no place on a logarithmic scale.")
    if not found.rows:
        told.append("There is no finite number to draw.")
    return " ".join(told)


def _number(row: Mapping[str, Any], seen: View) -> dict[str, Any]:
    told = {"curve": row["name"], "step": row["step"], "value": row["value"]}
    return told | ({"smoothed": row["smooth"]} if seen.smoothing > 0 else {})
