"""The parts of the page Models about one version."""

from __future__ import annotations

import streamlit as st

from dashboard import charts, charts_models, exams
from dashboard.reproducible import reproducible
from dashboard.showing import chart, nothing, told
from dashboard.site import link
from dashboard.sources import audit, versions
from dashboard.sources.evaluation import scores_of
from dashboard.versions_table import weights
from dashboard.words import ago, percent, plain, when
from uni_moe.registry.read import Decision, Version

VIEWS = ("verdicts", "scores", "decisions", "reproducible", "passport")
_MOST_ENTRIES = 100
_NUMBERS = ("difference", "low", "high", "surely")


def chosen(version: Version) -> None:
    """Show one version: what it is, and what the chosen view tells of it."""
    st.subheader(f"Version {version.number}: {versions.standing(version)}", anchor=False)
    gone = versions.removed()
    st.text(
        f"registered {when(version.at)} ({ago(version.at)}) by {version.who}: {version.reason}\n"
        f"model {version.model}\nweights: {weights(version, gone)}"
    )
    with st.container(horizontal=True, gap="medium"):
        link("lineage", "Lineage", artifact=version.number)
        link("data", "Data", version=version.number)
        link("evaluation", "Evaluation", version=version.number)
        link("experts", "Experts", version=version.number)
        link("audit", "Audit entries", subject=version.model[:12])
    view = st.segmented_control(
        "What about it",
        VIEWS,
        default=VIEWS[0],
        key="view",
        bind="query-params",
        label_visibility="collapsed",
        required=True,
    )
    with told():
        _SHOWN[view or VIEWS[0]](version)


def _verdicts(version: Version) -> None:
    found = versions.decisions_about(version.model)
    if not found:
        nothing(
            "The gate has not judged this version.",
            f"`uni-moe promote {version.number} --why TEXT` asks it.",
        )
    for place, one in enumerate(reversed(found)):
        with st.container(border=True):
            _verdict(one, str(place), is_last=place == 0)


def _verdict(one: Decision, place: str, *, is_last: bool) -> None:
    entry = audit.deciders().get(one.run)
    asked_by = "" if entry is None else f", asked for by {entry.who}: {entry.why}"
    word = versions.verdict_word(one).capitalize()
    st.markdown(f"**{plain(word)}** {plain(when(one.at) + asked_by)}")
    st.markdown("\n".join(f"- {plain(reason)}" for reason in one.verdict.reasons))
    link("run", "The run that decided", run=one.run)
    rows = versions.differences(one)
    margin = versions.margin(one)
    compared = [
        {**row, "says": _says(row, margin)}
        for row in rows
        if all(row[name] is not None for name in _NUMBERS)
    ]
    if compared and is_last:
        _compared(compared, margin, place)
    elif rows:
        _numbers(rows, place)


def _compared(rows: list[dict[str, object]], margin: float | None, place: str) -> None:
    lost = "" if margin is None else f" Left of the dashed line, {margin:g} points, is too much."
    chart(
        charts_models.differences(rows, margin),
        rows,
        title="Candidate less champion by modality (points of a hundred)",
        look_for="A line is the interval of a paired difference over the same items; right of 0 "
        "the candidate did better; it is called so where that holds of the interval, widened for "
        f"all modalities.{lost} The gate decides by these intervals, not by p values.",
        key=f"differences-{place}",
    )
    seen = [f"{row['name']} {row['detectable']:.1f}" for row in rows if row["detectable"]]
    st.caption(plain("Smallest difference that would likely be seen, points: " + ", ".join(seen)))


def _numbers(rows: list[dict[str, object]], place: str) -> None:
    """Show the numbers that the gate had, those that it had not left out."""
    there = [name for name in rows[0] if any(row.get(name) is not None for row in rows)]
    st.dataframe(
        [{_HEADINGS.get(name, name): row[name] for name in there} for row in rows],
        hide_index=True,
        key=f"evidence-{place}",
        alt="What the gate compared, by modality, in points of a hundred.",
    )


_HEADINGS = {
    "name": "modality",
    "candidate": "candidate (%)",
    "champion": "champion (%)",
    "guessing": "guessing (%)",
    "difference": "difference (points)",
    "surely": "lowest, widened (points)",
    "detectable": "smallest seen (points)",
}


def _says(row: dict[str, object], margin: float | None) -> str:
    """Say what the gate's own intervals show; better by the one that is widened for all claims."""
    low, high, surely = (float(str(row[name])) for name in _NUMBERS[1:])
    if surely > 0:
        return "better"
    if margin is not None and low >= -margin:
        return "no worse than the margin"
    return "worse" if high < 0 else "not shown"


def _scores(version: Version) -> None:
    found = scores_of((version.report,), "modality").get(version.report, {})
    if not found:
        nothing("The index knows no scores of its report.", "`uni-moe index` imports them.")
        return
    rows = exams.score_rows({str(version.number): found})
    chart(
        charts.scores(rows),
        rows,
        title="Right answers by modality, share",
        look_for="Each line is the interval of a score. Look for one that reaches the orange tick: "
        "the model guesses there.",
        key="version-scores",
    )
    st.text(f"mean over modalities {percent(exams.mean_of(found))}")
    link("evaluation", "By task, with the items", version=version.number)


def _decisions(version: Version) -> None:
    found = audit.about(version.model)
    if not found:
        nothing("The audit log tells nothing of this version.", "It may be older than the log.")
        return
    st.dataframe(
        [
            {"entry": e.sequence, "when": when(e.at), "what": e.event, "who": e.who, "why": e.why}
            for e in reversed(found[-_MOST_ENTRIES:])
        ],
        hide_index=True,
        key="about-version",
        alt="Registration, approvals, verdicts and waivers of this version, newest first.",
    )
    if audit.chain().problem is not None:
        st.warning("The log is broken: entries behind the first bad one are not shown.")
    link("audit", "These entries with their evidence", subject=version.model[:12])


def _passport(version: Version) -> None:
    st.text(
        "One page about this model: data and licenses, experts, scores, verdicts, limits. It opens "
        "offline.\nBuilding it reads every byte that is kept of the model, so it is made on demand."
    )
    if st.button("Build the passport", key="build-passport", icon=":material/badge:"):
        with st.spinner("Reading what is kept of the model"):
            page = versions.passport(version.number)
        st.download_button(
            "Download the passport",
            page,
            file_name=f"passport-{version.number}.html",
            mime="text/html",
            key="passport",
            on_click="ignore",
            icon=":material/download:",
        )
    st.code(f"uni-moe passport {version.number} --out passport.html", language=None)


_SHOWN = dict(zip(VIEWS, (_verdicts, _scores, _decisions, reproducible, _passport), strict=True))
