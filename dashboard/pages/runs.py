"""Runs: what ran, when, why, and how it ended; two to six of them beside one another."""

from __future__ import annotations

from typing import Any, cast

import streamlit as st

from dashboard.choosing import page_asked, page_control, pages_of
from dashboard.curve_rows import Line, differing, flattened, gather
from dashboard.metric_groups import group_of
from dashboard.run_parts import MOST_COMPARED, STATUSES, bounds, curves, table, view
from dashboard.showing import head, live, nothing, selection_key, told
from dashboard.site import asked, link
from dashboard.sources import runs
from dashboard.sources.curves import TIME, Numbers, numbers
from dashboard.words import lasting
from uni_moe.registry.read import RunFilter, RunOrder, RunPage
from uni_moe.registry.run_questions import PAGE, By

_ORDERS: dict[str, By] = {
    "when": "started",
    "duration": "duration_s",
    "stage": "stage",
    "status": "status",
    "who": "user",
    "last loss": "loss",
}
_MOST_RUNNING = 8  # links to what runs now


def first_page() -> None:
    """Go back to the first page: another filter gives other pages."""
    if st.session_state.get("page", 1) != 1:
        st.session_state["page"] = 1


def filters(fresh: runs.Fresh) -> RunFilter:
    """Show the filters, and return what is chosen."""
    known = runs.choices()
    stages = sorted({*known.stages, *(line.stage for line in fresh.lines)})
    users = sorted({*known.users, *(line.user for line in fresh.lines if line.user)})
    row = st.columns([2, 1.4, 1.4, 2, 1.3, 1.3])
    with row[0]:
        stage = chosen("Stage", stages, "stage", "all stages")
    with row[1]:
        status = chosen("Status", list(STATUSES), "status", "any")
    with row[2]:
        user = chosen("Who", users, "who", "anyone")
    why = text("Why contains", "why", row[3], "part of the reason")
    since = text("Since", "since", row[4], "24h, 7d, 2026-03-31")
    until = text("Until", "until", row[5], "24h, 7d, 2026-03-31")
    return RunFilter(stage, status, user, why or None, runs.since(since), runs.until(until))


def chosen(label: str, options: list[str], key: str, every: str) -> str | None:
    """Show a choice of one or none."""
    return st.selectbox(
        label,
        options,
        index=None,
        placeholder=every,
        key=key,
        bind="query-params",
        on_change=first_page,
    )


def text(label: str, key: str, column: Any, example: str) -> str:  # noqa: ANN401 - a column
    """Show a field for text."""
    return cast(
        str,
        column.text_input(
            label, key=key, placeholder=example, bind="query-params", on_change=first_page
        ),
    )


def order() -> RunOrder:
    """Show by what runs are ordered, and return it."""
    by, way, _ = st.columns([2, 2, 5], vertical_alignment="bottom")
    name = by.selectbox(
        "Order by", list(_ORDERS), key="sort", bind="query-params", on_change=first_page
    )
    up = way.toggle("Smallest or oldest first", key="up", bind="query-params", on_change=first_page)
    return RunOrder(_ORDERS[name or "when"], descending=not up)


def listed(wanted: RunFilter, by: RunOrder, fresh: runs.Fresh) -> None:
    """Show a page of runs, and lead on to one or to several of them."""
    number = page_asked("page")
    found: RunPage = runs.page(wanted, fresh.lines, by, number)
    pages = pages_of(found.total, PAGE)
    if number > pages:
        number = pages
        found = runs.page(wanted, fresh.lines, by, number)
    if not found.total:
        empty(wanted)
        return
    first = (number - 1) * PAGE + 1
    st.caption(
        f"{first:,} to {first + len(found.lines) - 1:,} of {found.total:,} runs. Click into a row "
        f"to open the run; tick 2 to {MOST_COMPARED} rows to compare them."
    )
    ticked = table(found.lines, key=selection_key("runs", (line.id for line in found.lines)))
    page_control("page", pages)
    lead_on(ticked)


def lead_on(ticked: list[str]) -> None:
    """Offer what can be done with the rows that are ticked."""
    if len(ticked) == 1:
        link("run", f"Open {ticked[0]}", run=ticked[0])
        st.caption("Tick another row to compare.")
    elif len(ticked) > MOST_COMPARED:
        st.warning(f"At most {MOST_COMPARED} runs are compared; untick some.")
    elif ticked and st.button(f"Compare these {len(ticked)} runs", type="primary", key="go"):
        st.query_params["compare"] = ",".join(ticked)
        st.rerun()


def empty(wanted: RunFilter) -> None:
    """Say that nothing is listed, and why."""
    if wanted == RunFilter():
        nothing("Nothing ran here yet.", "`uni-moe run` runs all stages.")
    else:
        nothing("No run fits these filters.", "Take one of them back.")


def lag(fresh: runs.Fresh) -> None:
    """Say what the index does not know yet, where that bounds what is shown."""
    if fresh.left_out:
        st.warning(
            f"The index does not know {fresh.unknown:,} runs; {fresh.left_out:,} older ones are "
            "not listed. `uni-moe index` brings them in."
        )
    if fresh.broken:
        st.warning(
            f"{len(fresh.broken)} run folders cannot be read and are not listed. Open one to see "
            "why."
        )
        for run in fresh.broken[:_MOST_RUNNING]:
            link("run", run, run=run)


@live(5.0)
def running(before: tuple[tuple[str, str], ...]) -> None:
    """Show what runs now; where a run began or ended, the page is shown anew."""
    lines = runs.fresh().lines
    if states(lines) != before:
        st.rerun()
    now = [line for line in lines if line.status == "running"]
    if not now:
        return
    st.markdown(f"**{len(now)} running now**" if len(now) > 1 else "**Running now**")
    for line in now[:_MOST_RUNNING]:
        loss = "" if line.loss is None else f", loss {line.loss:.4f}"
        link("run", f"{line.stage}{loss}", icon=":material/play_circle:", run=line.id)


def states(lines: tuple[Any, ...]) -> tuple[tuple[str, str], ...]:
    """Return which runs are in which state."""
    return tuple((line.id, line.status) for line in lines)


def compared(names: list[str]) -> None:
    """Show two to six runs beside one another: curves, and parameters that differ."""
    records = {name: runs.record(name) for name in dict.fromkeys(names[:MOST_COMPARED])}
    for name in [name for name, record in records.items() if record is None]:
        nothing("One of the runs to compare is not known:", "it is left out.")
        st.text(name[:200])
    there = {name: record for name, record in records.items() if record is not None}
    if len(there) < 2:
        nothing("Two runs or more are compared.", "Tick them in the table below.")
        return
    st.subheader(f"{len(there)} runs compared", anchor=False)
    labels = {name: f"{record['stage']} {name[-6:]}" for name, record in there.items()}
    for name, record in there.items():
        lasted = lasting(record.get("duration_s"))
        link("run", f"{labels[name]}: {record['status']}, {lasted}", run=name)
    told_ = {labels[name]: numbers(name) for name in there}
    bounds(told_.values())
    overlaid(told_)
    parameters({labels[name]: runs.parameters(record) for name, record in there.items()})
    if st.button("Close the comparison", key="close"):
        del st.query_params["compare"]
        st.rerun()


def overlaid(told: dict[str, Numbers]) -> None:
    """Show the curves of one number, of all runs."""
    keys = sorted({key for one in told.values() for key in one.keys()} - {TIME})  # noqa: SIM118
    if not keys:
        nothing("None of these runs told any numbers.", "Compare runs that train.")
        return
    first = keys.index("loss") if "loss" in keys else 0
    key = st.selectbox("Number", keys, index=first, key="metric", bind="query-params") or "loss"
    seen, group = view(), group_of(key)
    lines = [
        Line(name, one.points(key), one.points(TIME), group.factor) for name, one in told.items()
    ]
    odd = {name: one.odd(key) for name, one in told.items()}
    curves(gather(lines, seen), group, seen, odd, key="compared")


def parameters(told: dict[str, dict[str, Any]]) -> None:
    """Show the parameters that are not the same."""
    st.markdown("**Parameters that differ**")
    rows = differing(told)
    if rows:
        st.dataframe(
            rows,
            hide_index=True,
            key="differing",
            alt="Parameters that differ: a row each, with its value in every run.",
        )
        return
    count = len(flattened(next(iter(told.values()))))
    st.text(
        f"None of {count}. What differs stands in the code or in the data: the lineage of what "
        "they made tells it."
        if count
        else "Nothing is known of their parameters."
    )


head("runs")
fresh = runs.fresh()
if asked("compare"):
    with told():
        compared([one for one in (asked("compare") or "").split(",") if one])
    st.divider()
running(states(fresh.lines))
lag(fresh)
wanted = None
with told():
    wanted = filters(fresh)
if wanted is not None:
    listed(wanted, order(), fresh)
