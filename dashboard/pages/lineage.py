"""Lineage: what made an artifact and what came of it, what differs, what a sample is in."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard import difference_view, sample_view
from dashboard.charts import Rows
from dashboard.choosing import chosen_row
from dashboard.drawing import dot
from dashboard.showing import head, nothing, told
from dashboard.site import asked, link
from dashboard.sources import lineage as source
from dashboard.sources.data import lying
from dashboard.words import ABSENT, plain, short
from uni_moe.registry.artifact_card import ArtifactCard
from uni_moe.registry.lineage import fact
from uni_moe.registry.naming import Meant
from uni_moe.registry.neighbourhood import COUNTED, WALKED, Neighbour, Neighbourhood

VIEWS = ("graph", "difference", "sample")
WAYS = ("up", "down", "both")
KINDS = (
    *("samples", "validated", "contract_report", "corpus", "foundation", "connector"),
    *("expert", "model", "report", "export"),
)
MOST_STEPS = 12


def graph() -> None:
    """Show the graph around an artifact, the same as a table, and the artifact's card."""
    fields = st.columns([4, 3, 2, 3], vertical_alignment="bottom")
    with fields[0]:
        said = st.text_input(
            "Artifact",
            key="artifact",
            bind="query-params",
            placeholder="the champion",
            help="A version's number, a name such as artifacts/model, or the beginning of an id "
            "(four letters or more).",
        )
    with fields[1]:
        way = st.segmented_control(
            "Way", WAYS, default="both", required=True, key="way", bind="query-params"
        )
    with fields[2]:
        steps = st.number_input("Steps", 1, MOST_STEPS, 3, key="steps", bind="query-params")
    with fields[3]:
        kind = st.selectbox(
            "Kind",
            KINDS,
            index=None,
            placeholder="every kind",
            key="kind",
            bind="query-params",
        )
    centre = meant(said.strip() or None)
    if centre is not None:
        found = source.neighbourhood(centre, way, int(steps), kind)
        picture(found, kind)
        st.subheader("The same as a table", anchor=False)
        st.caption("Select a row to make that artifact the centre.")
        table(found)
        card(found)


def meant(said: str | None) -> str | None:
    """Return the id that is meant; where none or several are, say so."""
    found: list[Meant] = source.meant(said, lying())
    if len(found) == 1:
        return found[0].id
    if said is None:
        nothing("No artifact is known yet.", "`uni-moe run` makes the first ones.")
    elif not found:
        st.warning(f"{plain(said, 80)} names no artifact that the index knows.")
        st.text(
            "Take a version's number, a name such as artifacts/model, or four letters or more of an"
            " id, or run `uni-moe index` if it was made just now."
        )
        link("lineage", "Show the champion", icon=":material/trophy:")
    else:
        st.warning(f"{plain(said, 80)} names several artifacts. Which one is meant?")
        for one in found:
            told = f"{one.name or 'its card is gone'} {one.id[:16]} ({one.kind or 'unknown kind'})"
            link("lineage", told, artifact=one.id)
    return None


def picture(found: Neighbourhood, kind: str | None) -> None:
    """Show the graph, and what it leaves out."""
    shown = len(found.nodes) - 1
    centre = found.nodes[0]
    above = sum(one.steps < 0 for one in found.nodes)
    said = f"{shown} artifacts around {centre.name}: {above} above it, {shown - above} below."
    st.text(said)
    for line in left_out(found, shown):
        st.warning(line, icon=":material/filter_alt:")
    if not shown and kind is None:
        st.text("Nothing that is known here made it, and nothing was made from it, this way.")
    st.graphviz_chart(
        dot(found),
        width="content",
        alt=f"{said} The table below holds the same.",
    )
    st.caption(
        "Left made right. A thick orange border marks the centre; a dashed border, that the card "
        "is gone; a dashed arrow, that artifacts between are not shown. The shape says the kind."
    )


def left_out(found: Neighbourhood, shown: int) -> list[str]:
    """Return what is not shown, and how to narrow. Our own words and numbers alone."""
    how = "Take fewer steps, one way alone, or one kind."
    lines = []
    if found.found > shown:
        lines.append(f"{found.found - shown:,} more are within these steps. {how}")
    if found.left_out:
        more = f"more than {COUNTED:,}" if found.is_endless else f"{found.left_out:,}"
        lines.append(
            f"There is more than the {WALKED:,} artifacts that are looked at: {more} arrows were "
            f"not followed. {how}"
        )
    return lines


def table(found: Neighbourhood) -> None:
    """Show the artifacts as rows; selecting one makes it the centre."""
    nodes = sorted(found.nodes, key=lambda one: (one.steps, one.name))
    chooser(f"lineage-table-{found.centre}", [row(one) for one in nodes], [one.id for one in nodes])


def chooser(key: str, rows: Rows, ids: Sequence[str]) -> None:
    """Show artifacts as rows; the one that is selected becomes the centre."""

    def centred(one: str) -> None:
        st.session_state["artifact"] = one

    chosen_row(key, rows, ids, centred, alt="Artifacts, with what is known of each.")


def row(one: Neighbour) -> dict[str, object]:
    """Return a node as a row for a person."""
    where = "the centre" if not one.steps else f"{abs(one.steps)} {_side(one.steps)}"
    facts = "; ".join(f"{name}: {fact(value)}" for name, value in one.facts.items())
    return {
        "where": where,
        "kind": one.kind or ABSENT,
        "name": one.name,
        "id": short(one.id),
        "stage": one.stage or "its card is gone",
        "versions": ", ".join(map(str, one.versions)) or ABSENT,
        "facts": facts[:500] or ABSENT,
    }


def _side(steps: int) -> str:
    return "above" if steps < 0 else "below"


def card(found: Neighbourhood) -> None:
    """Show the centre's card: its stage, runs, versions, parents, params and results."""
    known: ArtifactCard | None = source.card(found.centre)
    st.subheader("The centre's card", anchor=False)
    if known is None:
        st.text(f"id {found.centre}")
        nothing(
            "Its card is gone: it was made again and never registered.",
            "What was made from it names it, and is below.",
        )
        return
    st.text(
        f"{known.name} ({known.kind})\nid    {known.id}\nstage {known.stage}\ncode  {known.code}"
    )
    ways(known)
    if known.parents:
        st.caption("It was made from these. Select one to make it the centre.")
        rows = [{"parent": name, "id": one} for name, one in known.parents.items()]
        chooser(f"lineage-parents-{known.id}", rows, [row["id"] for row in rows])
    for name, part_of in (("Parameters", known.params), ("Results", known.results)):
        with st.expander(name, key=f"lineage-{name}", on_change="rerun") as part:
            if part.open:
                st.json(part_of, expanded=2)


def ways(known: ArtifactCard) -> None:
    """Show links to the model version and to the runs that made it."""
    for number in known.versions[-3:]:
        link("models", f"Version {number}", icon=":material/trophy:", version=number)
    for run in known.runs[:3]:
        link("run", f"Run {run}", icon=":material/monitoring:", run=run)
    if not known.runs:
        st.caption("The runs that made it are not in the index.")


def usual() -> str:
    """Return the view that the address means without saying so."""
    if sample_view.is_asked():
        return "sample"
    return "difference" if asked("a") or asked("b") else "graph"


head("lineage")
view = st.segmented_control(
    "View",
    VIEWS,
    default=usual(),
    required=True,
    key="view",
    bind="query-params",
    label_visibility="collapsed",
)
with told():
    if view == "difference":
        difference_view.show()
    elif view == "sample":
        sample_view.show()
    else:
        graph()
