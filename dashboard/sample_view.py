"""Shows what samples are in, whether they can be removed, and what follows."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import streamlit as st

from dashboard.showing import nothing, told
from dashboard.site import asked, link
from dashboard.sources import lineage as source
from dashboard.sources.data import lying
from dashboard.words import ABSENT, short
from uni_moe.registry.asked import Asked
from uni_moe.registry.impact import Impact, Touched
from uni_moe.registry.impact_text import SAID
from uni_moe.registry.rerun import Again
from uni_moe.registry.sample_facts import SampleFacts

_FIELDS = {
    "sample": ("Sample", "source/name, or eight letters or more of an id"),
    "subject": ("Subject", "whose voice or face"),
    "source": ("Source", "a source's name"),
    "license": ("Licence", "such as CC0-1.0"),
}
_KEYS = 10  # that a command names


def show() -> None:
    """Show the fields, and what the samples that they name are in."""
    wanted = question()
    if not wanted.text:
        nothing(
            "No sample is asked for.",
            "Write a key or an id, or a subject, a source or a licence.",
        )
        return
    with told():
        facts(source.samples(wanted))
        follows(wanted)


def question() -> Asked:
    """Show the fields that name samples; return what they say."""
    said = {}
    for column, (name, (label, example)) in zip(
        st.columns(len(_FIELDS)), _FIELDS.items(), strict=True
    ):
        with column:
            text = st.text_input(label, key=name, bind="query-params", placeholder=example)
            said[name] = (text.strip(),) if text.strip() else ()
    return Asked(said["sample"], said["subject"], said["source"], said["license"])


def facts(found: SampleFacts) -> None:
    """Show what manifests say of the first samples."""
    st.subheader(f"{found.samples:,} sample{'s' if found.samples != 1 else ''}", anchor=False)
    rows = [
        {
            "key": one.key,
            "modality": one.modality,
            "source": one.source,
            "license": one.license or "none is told",
            "subject": one.subject or ABSENT,
            "split": one.split or ABSENT,
            "id": one.id or "a ledger alone names it",
        }
        for one in found.first
    ]
    st.dataframe(rows, hide_index=True, key="sample-facts", alt="What manifests say of them.")
    if found.samples > len(rows):
        st.caption(f"The first {len(rows)} of {found.samples:,}.")


def follows(wanted: Asked) -> None:
    """Show every artifact that samples are in, whether they can go, and what to run."""
    with st.spinner("Looking through ledgers and lineage"):
        found: Impact = source.impact(wanted, lying())
    st.subheader("What saw them", anchor=False)
    st.text(verdict(found))
    if found.touched:
        rows = [row(one) for one in found.touched]
        st.dataframe(rows, hide_index=True, key="sample-touched", alt="What the samples are in.")
    if found.spared:
        st.text(f"{len(found.spared)} artifacts never drew them, as their ledgers prove.")
    for number in found.versions[:5]:
        link("lineage", f"Graph around version {number}", artifact=number)
    st.subheader("Can they be removed, and what follows?", anchor=False)
    removal(found)


def verdict(found: Impact) -> str:
    """Return in words which models have seen the samples."""
    if not found.versions:
        said = "No registered version is known to have them."
    else:
        numbers = ", ".join(map(str, found.versions))
        live = "the champion is one of them" if found.live is not None else "the champion is not"
        said = f"Registered versions that may have learned from them: {numbers}; {live}."
    if found.unknown:
        numbers = ", ".join(map(str, found.unknown))
        said += f"\nNothing can be said of versions {numbers}: no manifest of their data is kept."
    return said


def row(one: Touched) -> dict[str, object]:
    """Return an artifact that samples are in as a row."""
    drawn = one.draws
    times, first, last, tokens = (
        (ABSENT,) * 4 if drawn is None else tuple(f"{number:,}" for number in drawn)
    )
    return {
        "artifact": ", ".join(one.places) or one.name,
        "how": SAID[one.how],
        "times drawn": times,
        "first step": first,
        "last step": last,
        "tokens learned": tokens,
        "versions": ", ".join(map(str, one.versions)) or ABSENT,
        "champion": "yes" if one.is_live else "",
        "lies here": "yes" if one.is_here else "",
        "kind": one.kind or ABSENT,
        "id": short(one.id),
    }


def removal(found: Impact) -> None:
    """Say that samples can go, at which cost, and with which commands."""
    st.text(
        "Yes: a removal leaves a tombstone, so that no other sample changes its place. These "
        "stages have to run again, and no others:"
    )
    for one in found.again:
        st.text(cost(one))
    st.code("\n".join(commands(found)), language=None)
    if found.live is not None:
        st.caption(
            "The champion cannot be forgotten while it is live: first the run above promotes "
            "another one, or `uni-moe rollback` does."
        )


def cost(one: Again) -> str:
    """Return which stages run again in one family, and which stay."""
    if not one.run:
        return f"of {one.of}: nothing has to run again"
    lines = [f"of {one.of}: {', '.join(one.run)}"]
    lines += [f"  run too and learn the same: {', '.join(one.repeat)}"] if one.repeat else []
    lines += [f"  stay: {', '.join(one.stay)}"] if one.stay else []
    lines += [f"  must not be begun with: {name}" for name in one.not_from]
    return "\n".join(lines)


def commands(found: Impact) -> list[str]:
    """Return what to type, in its order."""
    keys = [shlex.quote(key) for key in found.keys[:_KEYS]]
    more = "  # and the others" if found.samples > len(keys) else ""
    lines = [f"uni-moe impact {_options(found.asked)}"]
    lines.append(f"uni-moe remove {' '.join(keys)}{more}")
    if any(one.run for one in found.again):
        lines.append("uni-moe run")
    lines += [f"uni-moe forget {number} --why TEXT" for number in found.versions]
    return [" ".join(line.splitlines()) for line in lines]


def _options(wanted: Asked) -> str:
    named: Sequence[tuple[str, Sequence[str]]] = (
        ("--subject ", wanted.subjects),
        ("--source ", wanted.sources),
        ("--license ", wanted.licenses),
    )
    parts = [shlex.quote(one) for one in wanted.samples]
    parts += [f"{option}{shlex.quote(one)}" for option, names in named for one in names]
    return " ".join(parts)


def is_asked() -> bool:
    """Say whether the address names a sample."""
    return any(map(asked, _FIELDS))
