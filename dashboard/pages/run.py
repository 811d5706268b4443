"""Run: how one training goes, live while it runs, from the registry when it is done."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import run_facts
from dashboard.metric_groups import Group, groups_of
from dashboard.run_parts import bounds, group_chart, table, view
from dashboard.showing import head, live, nothing, selection_key, told
from dashboard.site import asked, link
from dashboard.sources import curves, runs
from dashboard.sources.tailing import WENT_BACK
from dashboard.words import lasting
from uni_moe.registry.read import RunFilter, RunOrder

_REFRESH_S = 2.0
_OPEN = ("loss", "modalities")  # charts that are open unless the address says others
_MARKED = ("alarm", WENT_BACK, "resumed")
_MOST_MARKS = 40


def newest() -> None:
    """Show the newest runs to choose from."""
    found = runs.page(RunFilter(), runs.fresh().lines, RunOrder(), 1)
    if not found.total:
        nothing("Nothing ran here yet.", "`uni-moe run` runs all stages.")
        return
    st.caption("Click into a row to open a run.")
    lines = found.lines[:20]
    for run in table(lines, key=selection_key("newest", (line.id for line in lines)))[:1]:
        link("run", f"Open {run}", run=run)
    link("runs", "All runs, with filters")


def unknown(run: str) -> None:
    """Say that there is no such run, and lead on."""
    nothing("There is no run of this name:", "choose one from the list of runs.")
    st.text(run[:200])
    link("runs", "All runs")


def shown(run: str) -> None:
    """Show a run."""
    record = runs.record(run)
    if record is None:
        unknown(run)
        return
    run_facts.head(record)
    if not runs.has_folder(run):
        st.info(
            "The folder of this run is not here any more: what the index kept is shown. Its "
            "environment and its events come back with the folder from a copy.",
            icon=":material/info:",
        )
    run_facts.flow(record)
    told_now = curves.numbers(run)
    groups = groups_of(told_now.keys())
    if record["status"] == "running":
        open_ = open_charts(groups)
        seen = view() if groups else None
        while_it_runs(run, [group.name for group in open_], len(groups), seen)
    else:
        numbers(told_now, groups)
    run_facts.settings(record)


def numbers(told_: curves.Numbers, groups: list[Group]) -> None:
    """Show the curves and the events of a run that is over."""
    tail = told_ if isinstance(told_, curves.Tail) else curves.watched(told_.run)
    if groups:
        open_, seen = open_charts(groups), view()
        bounds([told_])
        drawn(told_, open_, seen, tail)
    else:
        nothing("This run told no numbers.", "Only stages that train do; see its events below.")
    run_facts.events(tail)
    run_facts.output(tail.run)


def open_charts(groups: list[Group]) -> list[Group]:
    """Show which charts there are, and return those that are open."""
    if not groups:
        return []
    names = {group.label: group for group in groups}  # the labels stand in the address
    first = [group.label for group in groups if group.name in _OPEN] or list(names)[:2]
    chosen = st.pills(
        "Charts",
        list(names),
        selection_mode="multi",
        default=first,
        key="charts",
        bind="query-params",
    )
    return [names[name] for name in chosen if name in names]


@live(_REFRESH_S)
def while_it_runs(run: str, open_: list[str], count: int, seen: Any) -> None:  # noqa: ANN401 - View
    """Show what a run has told until now, again and again; when it ends, the page is shown anew."""
    record = runs.record(run)
    tail = curves.watched(run)
    groups = groups_of(tail.keys())
    if record is None or record["status"] != "running" or len(groups) != count:
        st.rerun()
    progress(record, tail)
    if tail.has_more:
        bounds([tail])
    if groups and seen is not None:
        drawn(tail, [group for group in groups if group.name in open_], seen, tail)
    else:
        nothing("No numbers yet.", "They appear here as soon as the first step is done.")
    run_facts.events(tail)
    run_facts.output(tail.run)


def progress(record: dict[str, Any], tail: curves.Tail) -> None:
    """Show how far a run is."""
    st.text(f"running for {lasting(run_facts.age_s(record))}")
    if tail.last_step is not None and tail.steps:
        share = min(1.0, max(0.0, tail.last_step / tail.steps))
        st.progress(share, text=f"step {tail.last_step:,} of {tail.steps:,}")
    elif tail.last_step is not None:
        st.text(f"step {tail.last_step:,}")
    if tail.position < tail.size - curves.NEARLY_BYTES:
        read = 100 * tail.position / tail.size
        st.caption(f"Reading what it told so far: {read:.0f} percent.")


def drawn(told_: curves.Numbers, open_: list[Group], seen: Any, tail: curves.Tail) -> None:  # noqa: ANN401 - View
    """Show the charts that are open, two beside one another."""
    marks = [
        (one.step, one.event, one.text)
        for one in tail.events
        if one.event in _MARKED and one.step is not None
    ][-_MOST_MARKS:]
    for place in range(0, len(open_), 2):
        for column, group in zip(st.columns(2), open_[place : place + 2], strict=False):
            with column:
                group_chart(group, told_, seen, marks)


head("run")
asked_for = asked("run")
with told():
    if asked_for is None:
        newest()
    else:
        shown(asked_for)
