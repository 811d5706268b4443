"""Shows what differs between two registered versions, section by section."""

from __future__ import annotations

import json
from collections.abc import Sequence

import streamlit as st

from dashboard.showing import nothing
from dashboard.site import link
from dashboard.sources import lineage as source
from dashboard.sources.models import models
from dashboard.sources.versions import standing
from dashboard.words import ABSENT, percent, plain, short
from uni_moe.differing import Difference, ScoreDiffers
from uni_moe.records import Score
from uni_moe.registry.differing import DataDiffers, Differs
from uni_moe.registry.read import Version

_SECTIONS = {
    "contract": "Contract: its version, rules, and samples that failed",
    "parameters": "Parameters",
    "code": "Code: files that changed",
    "environment": "Environment: packages, hardware, routes",
}
_LONGEST = 400  # letters of a value in a table


def show() -> None:
    """Show the two fields and what differs between the versions in them."""
    known = {one.number: one for one in models()}
    if len(known) < 2:
        nothing(
            f"{len(known)} versions are registered; two are needed to compare.",
            "`uni-moe run` trains, judges and registers one.",
        )
        return
    before, after = usual(list(known.values()))
    fields = st.columns(2)
    sides = []
    for field, name, label, default in (
        (fields[0], "a", "Version before", before),
        (fields[1], "b", "Version after", after),
    ):
        with field:
            sides.append(
                st.selectbox(
                    label,
                    sorted(known),
                    index=sorted(known).index(default),
                    key=name,
                    bind="query-params",
                )
            )
            about(known[sides[-1]])
    a, b = sides
    if a == b:
        nothing("Both are one version.", "Choose two.")
        return
    with st.spinner("Comparing cards, manifests and run records"):
        found = source.difference(a, b)
    told(found)


def usual(known: Sequence[Version]) -> tuple[int, int]:
    """Return the champion and the version before it; without one, the last two."""
    numbers = sorted(one.number for one in known)
    live = next((one.number for one in known if one.is_champion), numbers[-1])
    place = max(1, numbers.index(live))
    return numbers[place - 1], numbers[place]


def about(one: Version) -> None:
    """Say which model this is."""
    st.text(f"{short(one.model)}, {standing(one)}: {one.reason}"[:300])
    link("lineage", f"Graph around version {one.number}", artifact=one.number)


def told(found: Difference) -> None:
    """Show every section that holds something, and say what is equal."""
    records = found.records
    equal = []
    if found.scores:
        scores(found.scores)
    else:
        equal.append("scores")
    if records is not None:
        if records.data:
            data(records.data)
        else:
            equal.append("data")
        for name, title in _SECTIONS.items():
            section: Sequence[Differs] = getattr(records, name)
            if section:
                differs(name, title, section)
            else:
                equal.append(name)
    if equal:
        st.text(f"No difference is known in: {', '.join(equal)}.")
    notes = (*(() if records is None else records.notes), *found.notes)
    for note in notes:
        st.caption(f"Note: {plain(note)}")
    st.caption("Weights are compared by the command:")
    st.code(f"uni-moe diff {found.a} {found.b}", language=None)


def scores(section: Sequence[ScoreDiffers]) -> None:
    """Show the scores that are others, with their intervals."""
    st.subheader("Scores", anchor=False)
    rows = [
        {
            "of": one.scope,
            "name": one.name,
            "before": _interval(one.before),
            "after": _interval(one.after),
            "change": _change(one),
            "items": "the same" if one.same_items else "others",
        }
        for one in section
    ]
    st.dataframe(rows, hide_index=True, key="difference-scores", alt="Scores before and after.")


def _interval(score: Score | None) -> str:
    if score is None:
        return "not judged"
    return f"{percent(score.score)} ({percent(score.low)} to {percent(score.high)})"


def _change(one: ScoreDiffers) -> str:
    if one.before is None or one.after is None:
        return ABSENT
    return f"{100 * (one.after.score - one.before.score):+.1f} points"


def data(section: Sequence[DataDiffers]) -> None:
    """Show which samples came, went or changed, by modality and source."""
    st.subheader("Data: accepted samples", anchor=False)
    rows = []
    for one in section:
        if one.change is None:
            rows.append({"modality": one.name, "change": "its manifest is not kept"})
            continue
        for word in ("added", "removed", "changed"):
            keys = ", ".join(one.change.keys[word])
            rows += [
                {
                    "modality": one.name,
                    "change": word,
                    "source": origin,
                    "samples": count,
                    "the first of them": keys,
                }
                for origin, count in getattr(one.change, word).items()
            ]
    st.dataframe(rows, hide_index=True, key="difference-data", alt="Samples that differ.")


def differs(name: str, title: str, section: Sequence[Differs]) -> None:
    """Show one section as a table of what, before, after and where."""
    st.subheader(title, anchor=False)
    rows = [
        {
            "what": one.what,
            "before": _value(one.before, is_code=name == "code"),
            "after": _value(one.after, is_code=name == "code"),
            "stages": ", ".join(one.where) or ABSENT,
        }
        for one in section
    ]
    st.dataframe(rows, hide_index=True, key=f"difference-{name}", alt=f"{title}, as a table.")


def _value(value: object, *, is_code: bool) -> str:
    if value is None:
        return "absent"
    if is_code:
        return str(value)[:12]
    return json.dumps(value, ensure_ascii=False, default=str)[:_LONGEST]
