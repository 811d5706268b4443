"""Audit: whether the record is whole, who decided what, and on what evidence."""

from __future__ import annotations

import json
from datetime import date

import streamlit as st

from dashboard.choosing import chosen_row, page_asked, page_control, pages_of
from dashboard.showing import head, nothing
from dashboard.site import asked, link
from dashboard.sources import audit
from dashboard.sources.models import called
from dashboard.words import plain, short, when
from uni_moe.audit import Entry
from uni_moe.registry.naming import SHORTEST

_MOST_LETTERS = 200_000  # of one entry's evidence in a browser
_EVERYBODY = "everybody"
_YEARS = 2000, 2200


def state() -> None:
    """Show whether the chain is whole, its head, and how to check it against a kept one."""
    found = audit.chain()
    if found.problem is not None:
        st.error(f"The log is broken at {plain(found.problem)}", icon=":material/error:")
        st.text(
            f"The {found.entries} entries before it are whole and stand below. Bring the log back "
            "from a copy, then check it: `uni-moe audit verify`."
        )
    else:
        st.success(
            f"The chain is whole: {found.entries} entries, each sealing those before it.",
            icon=":material/verified:",
        )
    for note in found.notes[:10]:
        st.caption(plain(f"note: {note}"))
    if found.head is not None:
        st.markdown(
            "Head, the hash that stands for all entries. Keep it elsewhere: whoever can write the "
            "log could write all of it anew, and only a kept head finds that. The command also "
            "reads every file and model that the log names; this page does not."
        )
        st.code(f"uni-moe audit verify --head {found.head}", language=None)


def filtered() -> audit.Wanted:
    """Let a person choose which entries to see."""
    events, people = audit.names()
    unheard(events, people)
    what, who, since, subject = st.columns([3, 2, 2, 2])
    chosen = what.multiselect("What", events, key="event", bind="query-params")
    person = who.selectbox("Who", [_EVERYBODY, *people], key="who", bind="query-params")
    day: date | None = since.date_input(
        "Since (UTC)",
        value=None,
        key="since",
        bind="query-params",
        format="YYYY-MM-DD",
        min_value=date(_YEARS[0], 1, 1),
        max_value=date(_YEARS[1], 1, 1),
    )
    about = subject.text_input("Model (version or id)", key="subject", bind="query-params")
    return audit.Wanted(
        events=tuple(chosen),
        who=None if person == _EVERYBODY else person,
        since=None if day is None else day.isoformat(),
        subject=_model(about),
    )


def unheard(events: list[str], people: list[str]) -> None:
    """Tell what the address asks for and no field can show: it filters nothing."""
    told = {
        "event": [one for one in st.query_params.get_all("event") if one not in events],
        "who": [one for one in st.query_params.get_all("who") if one not in (_EVERYBODY, *people)],
        "since": [one for one in st.query_params.get_all("since") if not _is_day(one)],
        "page": [one for one in st.query_params.get_all("page") if not one.isdecimal()],
    }
    for name, values in told.items():
        if values:
            said = plain(", ".join(values), 80)
            st.warning(f"The address asks for what is not there, and it is left out: {name} {said}")


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).year >= _YEARS[0]
    except ValueError:
        return False


def _model(name: str | None) -> str | None:
    """Return the model that is meant, or the beginning of its id; a word too short is told."""
    if not name:
        return None
    version = called(name)
    if version is None and len(name) < SHORTEST:
        st.warning(
            f"{plain(name)} is no version, and too short for an id: {SHORTEST} letters or more. It "
            "filters nothing."
        )
        return None
    return name if version is None else version.model


def table(wanted: audit.Wanted) -> None:
    """Show a page of entries, newest first; a row that is chosen goes into the address."""
    count = audit.entries(wanted)[1]
    pages = pages_of(count, audit.PAGE)
    found = audit.entries(wanted, page_asked("page", pages))[0]
    if not found:
        nothing("No entry is like this.", "Take a filter away.")
        return
    st.caption(f"{count} entries, newest first. Choose a row to see its evidence.")
    chosen_row(
        "entries",
        [_row(one) for one in found],
        [one.sequence for one in found],
        lambda number: st.query_params.update(entry=str(number)),
        alt="Entries of the audit log: number, when, what, who, about which model, and why.",
    )
    page_control("page", pages)


def _row(one: Entry) -> dict[str, object]:
    return {
        "entry": one.sequence,
        "when": when(one.at),
        "what": one.event,
        "who": one.who,
        "model": short(one.subject),
        "why": one.why,
        "hash": one.hash[:12],
    }


def one_entry(name: str) -> None:
    """Show one entry: what it tells, its evidence, and what it names."""
    one = audit.entry(name)
    if one is None:
        st.warning(
            f"The whole part of the log has no such entry: {plain(name, 80)}. Take one, by its "
            "number, from the table."
        )
        return
    st.subheader(f"Entry {one.sequence}", anchor=False)
    st.text(
        f"{one.event} by {one.who}, {when(one.at)}\nwhy: {one.why}\n"
        f"hash {one.hash}\nthe entry before {one.previous}"
    )
    if one.subject is not None:
        link("models", "The model that it is about", version=one.subject)
    _named(one)
    st.markdown("**Evidence**")
    text = json.dumps(one.evidence, ensure_ascii=False, indent=1)
    if len(text) > _MOST_LETTERS:
        st.caption("It is long: this is its beginning. `uni-moe audit show --json` prints all.")
        st.code(text[:_MOST_LETTERS], language=None, height=400)
    else:
        st.json(dict(one.evidence), expanded=2)


def _named(one: Entry) -> None:
    count = audit.named_count(one)
    if not count:
        return
    st.markdown("**What it names, held against what is there**")
    found = audit.named(one)
    st.dataframe(
        [{"path": n.path, "kind": n.kind, "now": n.match, "why": n.why} for n in found],
        hide_index=True,
        key="named",
        alt="Files and artifacts that the entry names, and whether each still matches.",
    )
    more = f"{count - len(found)} more are not shown. " if count > len(found) else ""
    st.caption(
        f"{more}Small files are hashed here, of artifacts only the card is read. "
        "`uni-moe audit verify` reads every byte."
    )


head("audit")
state()
if audit.chain().entries:
    entry = asked("entry")
    if entry is not None:
        one_entry(entry)
    st.subheader("Entries", anchor=False)
    table(filtered())
elif audit.chain().problem is None:
    nothing("Nothing was decided here yet.", "The first registration begins the log.")
