"""What is known of one run beside its curves: its head, its flow, its events and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboard import charts_runs
from dashboard.curve_rows import flattened
from dashboard.run_parts import STATUSES
from dashboard.showing import chart, nothing
from dashboard.site import link
from dashboard.sources import runs
from dashboard.sources.models import models
from dashboard.sources.tailing import WENT_BACK, Tail
from dashboard.words import ABSENT, ago, lasting, moment_of, plain, short, since_s, when
from uni_moe.registry.cards import DEAD_AFTER_S

_SAID = {
    "running": f"It is running: its last sign of life is less than {DEAD_AFTER_S:.0f} s old.",
    "done": "It ended well.",
    "failed": "It ended with an error, which is told below.",
    "died": "It died: its signs of life stopped without an end. The process was killed, or the "
    "machine went off. The same command goes on from the last state.",
}
_LONGEST_ERROR = 20_000  # letters
_MOST_ROWS = 2_000
_MOST_ARTIFACTS = 30
_MOST_BACK = 3  # times that a training went back, the last ones


def age_s(record: Mapping[str, Any]) -> float:
    """Return for how long a run runs, or ran."""
    if record.get("duration_s") is not None:
        return float(record["duration_s"])
    return since_s(record["started"]) or 0.0


def head(record: Mapping[str, Any]) -> None:
    """Show how a run stands, what it was, and what it made."""
    status = str(record["status"])
    st.subheader(f"{plain(record['stage'])}: {plain(STATUSES.get(status, status))}", anchor=False)
    st.caption(_SAID.get(status, ""))
    lasted = lasting(record.get("duration_s"))
    facts = {
        "Began": f"{when(record['started'])} ({ago(record['started'])})",
        "Lasted": "not over yet" if status == "running" else lasted,
        "Who": f"{record.get('user') or ABSENT} on {record.get('host') or ABSENT}",
        "Why": record.get("reason") or "no reason was given",
        "Commit": (record.get("commit") or ABSENT)[:60],
        "Run": record["id"],
    }
    for start in (0, 3):
        for column, (name, value) in zip(
            st.columns(3), list(facts.items())[start : start + 3], strict=True
        ):
            with column.container(gap=None):
                st.caption(name)
                st.text(str(value)[:400])
    if record.get("error"):
        st.markdown("**The error**")
        st.code(str(record["error"])[:_LONGEST_ERROR], language=None, wrap_lines=True)
    made(record)


def made(record: Mapping[str, Any]) -> None:
    """Show links to what a run made, and to the version that came of it."""
    artifacts: dict[str, str] = dict(record.get("artifacts") or {})
    if not artifacts:
        return
    st.caption("It made")
    versions = {one.model: one.number for one in models()}
    with st.container(horizontal=True):
        for name, card in list(artifacts.items())[:_MOST_ARTIFACTS]:
            link("lineage", f"{name} {short(card)}", icon=":material/account_tree:", artifact=card)
            if card in versions:
                number = versions[card]
                link("models", f"Version {number}", icon=":material/trophy:", version=number)
    if len(artifacts) > _MOST_ARTIFACTS:
        st.text(f"and {len(artifacts) - _MOST_ARTIFACTS} more")


def flow(record: dict[str, Any]) -> None:
    """Show the stages of the same flow run in time, each a link."""
    stages = runs.flow(record)
    if len(stages) < 2:
        return
    with st.expander(
        f"The {len(stages)} stages of the same flow run",
        key="flow",
        on_change="rerun",
        bind="query-params",
    ) as part:
        if part.open:
            _stages(record, stages)


def _stages(record: Mapping[str, Any], stages: list[dict[str, Any]]) -> None:
    first = moment_of(stages[0]["started"])
    rows = []
    for one in stages:
        began = moment_of(one["started"])
        begin = (began - first).total_seconds() / 60 if began and first else 0.0
        lasted = lasting(age_s(one)) if one["status"] != "died" else "died"
        is_this = one["id"] == record["id"]
        minutes = 0.0 if one["status"] == "died" else age_s(one) / 60
        rows.append(
            {
                "stage": str(one["stage"])[:80],
                "begin": round(begin, 3),
                "end": round(begin + minutes, 3),
                "lasted": lasted,
                "label": f"{lasted}, this run" if is_this else lasted,
                "status": one["status"],
                "is_this": is_this,
            }
        )
    chart(
        charts_runs.stages(rows),
        rows,
        title="Stages of the flow run, minutes",
        look_for="Each bar is a stage, from its begin to its end. Look for the longest, and for "
        "gaps in which nothing ran.",
        key="stages",
    )
    st.caption(
        f"Stages are sought among the {runs.AROUND} runs before this one and the {runs.AROUND} "
        "after it."
    )
    with st.container(horizontal=True):
        for one in stages:
            if one["id"] != record["id"]:
                link("run", f"{one['stage']} ({lasting(one.get('duration_s'))})", run=one["id"])


def events(tail: Tail) -> None:
    """Show what happened in a run, the newest first."""
    st.markdown("**What happened**")
    if not tail.events:
        nothing("No events are known.", "They stand in the run's folder while it is here.")
        return
    total = tail.happened
    alarms = tail.counts["alarm"]
    st.caption(
        f"{total:,} events, {alarms:,} of them alarms, newest first"
        + (f"; the last {len(tail.events)} are shown." if total > len(tail.events) else ".")
    )
    for one in [one for one in reversed(tail.events) if one.event == WENT_BACK][:_MOST_BACK]:
        st.warning(f"The training {plain(one.text)}.", icon=":material/undo:")
    rows = [
        {"when": _second(one.time), "step": one.step, "what": one.event, "said": one.text}
        for one in reversed(tail.events)
    ]
    st.dataframe(
        rows,
        hide_index=True,
        key="events",
        alt="Events of the run, newest first: when, at which step, what, and what was said.",
        height=min(38 + 35 * len(rows), 320),
        column_config={
            "when": st.column_config.TextColumn(width="small"),
            "step": st.column_config.NumberColumn(width="small"),
            "what": st.column_config.TextColumn(width="small"),
            "said": st.column_config.TextColumn(width="large"),
        },
    )


def output(run: str) -> None:
    """Show the end of what a stage said."""
    lines = runs.output(run)
    st.markdown("**What it said**")
    if not lines:
        nothing("Nothing that it said is kept here.", "Stages keep it in `output.txt`.")
        return
    st.caption(f"The newest last; at most {runs.SAID_LINES} lines are shown.")
    st.code("\n".join(lines), language=None, height=min(38 + 21 * len(lines), 320))


def settings(record: Mapping[str, Any]) -> None:
    """Show parameters, environment and code of a run as tables that can be searched."""
    parts = {
        "Parameters": runs.parameters(dict(record)),
        "Environment": record.get("environment"),
        "Code, hashes by module": record.get("code"),
    }
    for (title, told), tab in zip(parts.items(), st.tabs(list(parts)), strict=True):
        with tab:
            rows = [{"name": name, "value": value} for name, value in flattened(told or {}).items()]
            if rows:
                st.dataframe(
                    rows[:_MOST_ROWS],
                    hide_index=True,
                    key=f"table-{title}",
                    alt=f"{title}: names and values.",
                )
            else:
                st.text("Nothing is known: it stands in the run's folder alone.")


def _second(moment: str) -> str:
    found = moment_of(moment)
    return ABSENT if found is None else f"{found:%H:%M:%S}"
