"""Shows what came in: sources, shares, and what each phase really saw."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import streamlit as st

from dashboard.charts_data import stacked
from dashboard.showing import chart, nothing
from dashboard.site import link
from dashboard.sources import data as source
from dashboard.sources.data import Generation
from dashboard.words import ABSENT, percent
from uni_moe.records import MODALITIES
from uni_moe.registry.generations import Member
from uni_moe.registry.read import Version

Counts = dict[str, Any]
_BARS = 60
_DRIFTS = 6  # versions whose data are compared with those before
_SAMPLES = ("seen", "held_out", "truncated_to_nothing", "not_reached", "quarantined", "removed")
_TOKENS = ("seen", "held_out", "truncated", "truncated_to_nothing", "not_reached")


def sources(data: Generation, known: Sequence[Version]) -> None:
    """Show what was listed, accepted and refused, by source and modality, and over versions."""
    rows = list(by_source(data))
    fates = ("accepted", "quarantined")
    parts = [
        {"what": f"{row['source']}, {row['modality']}", "fate": one, "count": row[one], "place": n}
        for row in rows
        for n, one in enumerate(fates)
        if row[one]
    ]
    chart(
        stacked(parts, across="what", unit="samples", order=fates),
        rows,
        title="Listed samples by source and modality",
        look_for="Quarantined samples were refused. Look for a source that loses many; "
        "the view quarantine says why.",
        key="data-sources",
    )
    st.dataframe(rows, hide_index=True, key="data-sources-shown", alt="Samples by source.")
    drifts(known)


def by_source(data: Generation) -> Iterator[Counts]:
    """Give a row for each source of each modality. A corpus counts by source, a verdict in all."""
    corpora, judged = data.of("corpus"), data.of("validated")
    for modality, samples in data.of("samples").items():
        told: Counts = samples.results.get("sources", {})
        corpus = corpora[modality].results if modality in corpora else {}
        refused: Counts | None = corpus.get("quarantined")
        if refused is None and len(told) == 1 and modality in judged:
            refused = dict.fromkeys(told, judged[modality].results.get("quarantined", 0))
        kinds = {one["name"]: one.get("kind") for one in samples.params.get("sources", [])}
        for name, listed in told.items():
            lost = None if refused is None else refused.get(name, 0)
            yield {
                "source": name,
                "modality": modality,
                "format": kinds.get(name),
                "listed": listed,
                "accepted": None if lost is None else listed - lost,
                "quarantined": lost,
            }


def drifts(known: Sequence[Version]) -> None:
    """Offer how accepted samples changed from version to version: whole tables are compared."""
    if len(known) < 2:
        return
    with st.expander(
        "What changed between versions", key="drift", on_change="rerun", bind="query-params"
    ) as part:
        if part.open:
            _drifts(known)


def _drifts(known: Sequence[Version]) -> None:
    pairs = list(itertools.pairwise(known))[-_DRIFTS:]
    rows: list[Counts] = []
    for before, after in pairs:
        found: source.Changes | None = source.drift(before.model, after.model)
        if found is None:
            told = {"from": before.number, "to": after.number, "modality": ABSENT}
            rows.append({**told, "change": "not known: one of them has no data that are known"})
            continue
        for modality, change in found.items():
            told = {"from": before.number, "to": after.number, "modality": modality}
            if change is None:
                rows.append({**told, "change": "not known: a manifest is not kept"})
                continue
            for word in ("added", "removed", "changed"):
                counts = getattr(change, word)
                rows += [
                    {**told, "change": word, "source": name, "samples": count}
                    for name, count in counts.items()
                ]
    if not rows:
        st.text(f"The last {len(pairs) + 1} versions accepted the same samples.")
    else:
        st.caption("Accepted samples of a version that the one before it did not have, or lost.")
        st.dataframe(rows, hide_index=True, key="data-drift", alt="Changes between versions.")
        last = pairs[-1]
        label = f"All that differs between versions {last[0].number} and {last[1].number}"
        link("lineage", label, view="difference", a=last[0].number, b=last[1].number)


def shares(data: Generation) -> None:
    """Show how much of the data is of which modality and under which licence."""
    judged = data.of("validated")
    counts = {name: one.results.get("accepted", 0) for name, one in judged.items()}
    total = sum(counts.values())
    rows = [
        {"modality": name, "fate": "accepted", "count": n, "share": percent(n / total), "place": 0}
        for name, n in counts.items()
        if total
    ]
    if rows:
        chart(
            stacked(rows, across="modality", unit="samples", order=("accepted",)),
            rows,
            title="Accepted samples by modality",
            look_for="A modality with far fewer samples than the others is learned worse, unless "
            "the blend draws it more often.",
            key="data-modalities",
        )
    licenses = [
        {"license": name, "fate": modality, "count": count, "place": place}
        for place, (modality, one) in enumerate(data.of("samples").items())
        for name, count in one.results.get("licenses", {}).items()
    ]
    if licenses:
        chart(
            stacked(licenses, across="license", unit="samples", order=MODALITIES),
            licenses,
            title="Listed samples by licence and modality",
            look_for="A licence that forbids what the model is for: the view sample lists what "
            "has learned from it (field Licence).",
            key="data-licenses",
        )
        for name in list(dict.fromkeys(row["license"] for row in licenses))[:5]:
            link("lineage", f"What learned from samples under {name}", view="sample", license=name)


def seen(data: Generation) -> None:
    """Show what each phase really saw, from its ledger: the law of exposure."""
    if not data.phases:
        nothing("No phase has learned from these data yet.", "`uni-moe run` trains them.")
        return
    st.text(
        "Each listed sample is counted once, in one column: listed = seen + held out + truncated "
        "to nothing + not reached + quarantined + removed."
    )
    accounts = [row for one in data.phases for row in exposures(one)]
    fates = [name.replace("_", " ") for name in _TOKENS]
    parts = [
        {
            "what": f"{row['phase']}: {row['source']}, {row['modality']}",
            "fate": fate,
            "count": count,
            "place": n,
        }
        for row in accounts[:_BARS]
        for n, (fate, count) in enumerate(zip(fates, row["_tokens"], strict=True))
        if count
    ]
    rows = [{key: value for key, value in row.items() if key[0] != "_"} for row in accounts]
    chart(
        stacked(parts, across="what", unit="loss-bearing tokens, each once", order=fates),
        rows,
        title="Tokens that bear loss, by phase, source and modality",
        look_for="Tokens that were not reached, or truncated: more steps or longer rows would "
        "use them.",
        key="data-seen",
    )
    st.dataframe(rows, hide_index=True, key="data-seen-rows", alt="Samples of each phase by fate.")
    strays = sum(row["strays"] or 0 for row in rows)
    if strays:
        st.warning(f"{strays:,} draws are of conversations that nobody may draw: a defect.")


def exposures(one: Member) -> Iterator[Counts]:
    """Give a row for each source and modality of a phase's account."""
    for name, modalities in sorted(one.results["exposure"].items()):
        for modality, told in sorted(modalities.items()):
            samples, tokens = told["samples"], told["tokens"]
            yield {
                "phase": one.stage,
                "source": name,
                "modality": modality,
                "listed": samples.get("listed"),
                **{key.replace("_", " "): samples.get(key, 0) for key in _SAMPLES},
                "draws": told.get("draws"),
                "tokens accepted": tokens.get("accepted"),
                "tokens learned, all draws": told.get("tokens_learned"),
                "strays": told.get("strays"),
                "_tokens": [tokens.get(key, 0) for key in _TOKENS],
            }
