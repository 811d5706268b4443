"""Data: which data came in, what was refused and why, and what was really learned from."""

from __future__ import annotations

import streamlit as st

from dashboard import data_refused, data_shown, sample_view
from dashboard.choosing import version_asked
from dashboard.showing import head, nothing, told
from dashboard.site import asked, link
from dashboard.sources import data as source
from dashboard.sources import lineage
from dashboard.sources.data import Generation, Stamp
from dashboard.sources.models import models
from dashboard.words import plain
from uni_moe.registry.generations import STEPS
from uni_moe.registry.read import Version

VIEWS = ("sources", "contracts", "quarantine", "shares", "seen", "sample")
HERE = "here"


def chosen(known: list[Version], *, lies_here: bool) -> str | None:
    """Return the model whose data are meant; None means what lies in artifacts/.

    Where nothing lies there, as beside a registry of others, the champion's are shown first.
    """
    numbers = {str(one.number): one.model for one in known}
    version_asked(also=(HERE,))
    names = [HERE, *reversed(numbers)]
    champion = next((str(one.number) for one in known if one.is_champion), HERE)
    name = st.selectbox(
        "Data of version",
        names,
        index=0 if lies_here else names.index(champion),
        key="version",
        bind="query-params",
        help=f"`{HERE}` is what lies in artifacts/ now; a number is a registered version.",
    )
    return numbers.get(name)


def one_sample(data: Generation, model: str | None, lies: Stamp) -> None:
    """Show a sample itself, and what it is in."""
    wanted = sample_view.question()
    if not wanted.text:
        nothing("No sample is asked for.", "Write a key or an id, or take one from quarantine.")
        return
    with told():
        found = lineage.samples(wanted)
        sample_view.facts(found)
        if found.samples and found.first:
            itself(data, model, lies, [one.key for one in found.first])
        sample_view.follows(wanted)


def itself(data: Generation, model: str | None, lies: Stamp, keys: list[str]) -> None:
    """Show the first of some samples with its media."""
    key = keys[0]
    row = source.sample(model, lies, key)
    if row is None:
        of = "artifacts/" if data.model is None else "this version"
        st.text(f"Its content is in no table of {of} that is kept here.")
        return
    with st.container(border=True):
        data_refused.sample(row)


def page() -> None:
    """Show the view that is asked for."""
    bar = st.columns([3, 1], vertical_alignment="bottom")
    with bar[0]:
        view = st.segmented_control(
            "View",
            VIEWS,
            default="sample" if sample_view.is_asked() and not asked("view") else "sources",
            required=True,
            key="view",
            bind="query-params",
        )
    versions, lies = models(), source.lying()
    with bar[1]:
        model = chosen(versions, lies_here=bool(source.generation(None, lies).members))
    data = source.generation(model, lies)
    if data.is_cut:
        st.warning(
            f"What lies more than {STEPS} steps above this model is not looked at: data may be "
            "missing here. The lineage goes further.",
            icon=":material/filter_alt:",
        )
        link("lineage", "Its lineage", artifact=model, way="up", steps=2 * STEPS)
    if view == "sample":
        one_sample(data, model, lies)
    elif not data.members:
        of = "artifacts/" if model is None else plain(model[:12])
        nothing(f"No data are known of {of}.", "`uni-moe run` ingests the sources of params.yaml.")
    elif view == "contracts":
        data_refused.contracts(model, lies, versions)
    elif view == "quarantine":
        data_refused.quarantine(model, lies)
    elif view == "shares":
        data_shown.shares(data)
    elif view == "seen":
        data_shown.seen(data)
    else:
        data_shown.sources(data, versions)


head("data")
with told():
    page()
