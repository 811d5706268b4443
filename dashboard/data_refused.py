"""Shows what the contract said, why samples were refused, and the refused samples themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import streamlit as st

from dashboard.charts_data import stacked
from dashboard.choosing import page_asked, page_control, pages_of
from dashboard.showing import chart, nothing, told
from dashboard.showing_media import show as show_medium
from dashboard.site import asked, link
from dashboard.sources import data as source
from dashboard.sources.data import Stamp
from dashboard.sources.media import medium, references
from dashboard.words import ABSENT, lasting, plain
from uni_moe.errors import LineageError
from uni_moe.registry.contract_verdicts import ContractVerdict
from uni_moe.registry.read import Version
from uni_moe.registry.rows import PAGE, RefusedPage

LEAK = "copied_content"
_VERSIONS = 12  # whose verdicts are listed
_LONGEST = 1_000  # letters of a text that is shown
_MEDIA = 4  # of one sample
_TURNS = 40  # of one conversation
_FACTS = {
    "split": "split {}",
    "task": "task {}",
    "license": "licence {}",
    "subject": "subject {}",
    "codec": "codec {}",
    "width_px": "{} px wide",
    "height_px": "{} px high",
    "sample_rate_hz": "{} Hz",
    "channels": "{} channel(s)",
    "media_bytes": "{:,} bytes",
}


def contracts(model: str | None, lies: Stamp, known: Sequence[Version]) -> None:
    """Show the contract's verdict on these data, rule by rule, and over versions."""
    with told():
        found: ContractVerdict | None = source.verdict(model, lies)
        if found is None:
            nothing("No contract has judged these data, or its report is not known.", _INDEX)
        else:
            rules(found)
    over_versions(known)


_INDEX = "`uni-moe index` reads new ones; `uni-moe run` judges again."


def rules(found: ContractVerdict) -> None:
    """Show one verdict."""
    word = "kept" if found.kept else "broken"
    st.subheader(f"The contract {plain(found.contract)} {found.version} is {word}", anchor=False)
    for breach in found.breaches[:20]:
        st.error(plain(breach))
    if not found.is_whole:
        st.caption("Its report judged some of these tables only; the others were judged earlier.")
    leaks = next((one for one in found.rules if one.code == LEAK and one.failed), None)
    if leaks is not None:
        st.warning(
            f"Leakage: {leaks.failed:,} held-out samples are copies of others. Scores on them "
            "measure memory.",
            icon=":material/warning:",
        )
        link("data", "See these samples", view="quarantine", reason=LEAK, version=asked("version"))
    failing = sum(one.failed > 0 for one in found.rules)
    st.text(f"{len(found.rules)} rules, {failing} with samples or sets that fail; these first.")
    rows = [
        {
            "rule": one.code,
            "judges": f"each {one.level}",
            "checked": one.checked,
            "failed": one.failed,
            "why": one.why or "its report is not kept here",
            "remedy": one.remedy or ABSENT,
            "in full": one.rule,
        }
        for one in sorted(found.rules, key=lambda one: -one.failed)
    ]
    st.dataframe(rows, hide_index=True, key="data-rules", alt="What each rule found.")
    link("lineage", "This report in the lineage", artifact=found.report)


def over_versions(known: Sequence[Version]) -> None:
    """Show the verdicts on the data of the last versions."""
    rows = []
    for one in reversed(known[-_VERSIONS:]):
        row: dict[str, Any] = {"version": one.number}
        try:
            found: ContractVerdict | None = source.verdict(one.model, ())
        except LineageError as error:
            rows.append({**row, "verdict": f"its report cannot be read: {error.cause}"})
            continue
        if found is None:
            row["verdict"] = "its report is not known"
        else:
            row |= {
                "contract": f"{found.contract} {found.version}",
                "verdict": "kept" if found.kept else "broken",
                "refusals, by reason": sum(reason.samples for reason in found.reasons),
                "rules": len(found.rules),
            }
        rows.append(row)
    if rows:
        st.subheader("Over versions", anchor=False)
        st.dataframe(rows, hide_index=True, key="data-contracts", alt="Verdicts by version.")


def quarantine(model: str | None, lies: Stamp) -> None:
    """Show why samples were refused, and the samples of one reason or all, by page."""
    found: ContractVerdict | None = None
    with told():
        found = source.verdict(model, lies)
    wanted = _wanted("reason") or None, page_asked("at")
    first: RefusedPage = source.refused(model, lies, *wanted)
    if not first.every:
        if first.lost:
            st.text(f"The quarantine of {', '.join(first.lost)} is not kept here.")
        nothing("No refused sample is known here.", "The view contracts lists every rule.")
        return
    reasons(first, found)
    reason = st.selectbox(
        "Reason",
        list(first.reasons),
        index=None,
        placeholder="every reason",
        key="reason",
        bind="query-params",
    )
    total = first.every if reason is None else first.reasons[reason]
    pages = pages_of(total, PAGE)
    page = page_asked("at", pages)
    chosen = first
    if (reason, page) != wanted:  # the address asks for what is not there
        chosen = source.refused(model, lies, reason, page)
    st.text(f"{total:,} samples, page {page} of {pages:,}")
    for row in chosen.rows:
        with st.container(border=True):
            sample(row)
            link(
                "data",
                "What holds it, and what follows",
                view="sample",
                sample=row["key"],
                version=asked("version"),
            )
    page_control("at", pages)


def _wanted(name: str) -> str | None:
    """Return what the fields say before they are shown: a person's word, or else the address's."""
    said = st.session_state[name] if name in st.session_state else asked(name)
    return None if said is None else str(said)


def reasons(first: RefusedPage, found: ContractVerdict | None) -> None:
    """Show the reasons with why and remedy."""
    said = {one.code: one for one in (() if found is None else found.reasons)}
    rows = []
    for code, count in first.reasons.items():
        own = said.get(code)
        rows.append(
            {
                "reason": code,
                "samples": count,
                "why": (own.why if own else None) or ABSENT,
                "remedy": (own.remedy if own else None) or ABSENT,
                "found by": (own.found_by if own else None) or ABSENT,
            }
        )
    parts = [
        {"reason": row["reason"], "fate": "quarantined", "count": row["samples"], "place": 0}
        for row in rows
    ]
    chart(
        stacked(parts, across="reason", unit="samples", order=("quarantined",)),
        rows,
        title="Refused samples by reason",
        look_for="A sample may have several reasons. The longest bar is the first to mend.",
        key="data-reasons",
    )
    st.dataframe(rows, hide_index=True, key="data-reasons-shown", alt="Reasons with remedies.")


def sample(row: Mapping[str, Any]) -> None:
    """Show one sample: why it was refused, its facts, its media, its conversation."""
    st.markdown(f"**{plain(row['key'])}**")
    if row.get("reasons"):
        st.text(f"refused: {row['reasons']}"[:_LONGEST])
    for detail in _details(row.get("problem_details")):
        st.text(detail)
    st.text(facts(row))
    refs = references(row.get("media"))
    caption = str(row.get("caption") or row.get("transcript") or "")
    for ref in refs[:_MEDIA]:
        show_medium(medium("samples", str(row["modality"]), ref), caption)
    named = row.get("n_media") or 0
    if len(refs) > _MEDIA:
        st.caption(f"{len(refs) - _MEDIA} more media are not shown.")
    elif named > len(refs):
        st.caption(f"{named - len(refs)} of {named} media could not be read when it came in.")
    said = list(turns(row.get("conversation")))
    for role, words in said[:_TURNS]:
        st.text(f"{role}: {words}")
    if len(said) > _TURNS:
        st.caption(f"These are the first {_TURNS} of {len(said):,} turns.")


def facts(row: Mapping[str, Any]) -> str:
    """Return what was measured of a sample in one line."""
    said = [str(row["modality"]), f"source {row['source']}"]
    said += [word.format(row[name]) for name, word in _FACTS.items() if row.get(name) is not None]
    if row.get("duration_s") is not None:
        said.append(f"lasts {lasting(row['duration_s'])}")
    return ", ".join(said)[:_LONGEST]


def turns(conversation: str | None) -> Iterator[tuple[str, str]]:
    """Give who says what; media stand as their kind in brackets."""
    try:
        messages = json.loads(conversation or "[]")
        for message in messages:
            content = message["content"]
            parts = [content] if isinstance(content, str) else [_part(one) for one in content]
            yield str(message["role"]), " ".join(" ".join(parts).split())[:_LONGEST]
    except (ValueError, TypeError, KeyError, AttributeError):
        yield "conversation", str(conversation)[:_LONGEST]


def _part(one: Mapping[str, Any]) -> str:
    return str(one["text"]) if one["type"] == "text" else f"[{one['type']}]"


def _details(text: str | None) -> list[str]:
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return [str(one)[:_LONGEST] for one in found if one][:5] if isinstance(found, list) else []
