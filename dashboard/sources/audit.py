"""The audit log: whether its chain is whole, its entries, and whether what they name is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import streamlit as st

from dashboard.sources.workspace import stamp, workspace
from uni_moe.artifacts import Layout, read_card, sha256_file
from uni_moe.audit import BEGINNING, Checked, Entry
from uni_moe.audit_log import log_file, read_log
from uni_moe.errors import LineageError

PAGE = 50
_MOST_NAMED = 50  # files and artifacts of one entry that are looked at
_MOST_BYTES = 4 << 20  # of a file that is hashed here
Match = Literal["matches", "differs", "gone", "not looked at"]


@dataclass(frozen=True)
class Chain:
    """Whether the log is whole. `problem` says which entry is not as it was written, and how."""

    entries: int
    head: str | None
    problem: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """Which entries are wanted: of these events, of one person, from a day on (2026-03-31)."""

    events: tuple[str, ...] = ()
    who: str | None = None
    since: str | None = None
    subject: str | None = None


@dataclass(frozen=True)
class Named:
    """A file or an artifact that an entry names, and whether it is the one that it tells of."""

    path: str
    kind: str
    match: Match
    why: str


def chain() -> Chain:
    """Return whether the log is whole, as far as hashes say."""
    found = _log()
    head = None if found.head == BEGINNING else found.head
    problem = found.problems[0].text if found.problems else None
    return Chain(len(found.entries), head, problem, found.notes)


def names() -> tuple[list[str], list[str]]:
    """Return the events and the people that the log tells of."""
    entries = _log().entries
    return sorted({one.event for one in entries}), sorted({one.who for one in entries})


def entries(wanted: Wanted, page: int = 1) -> tuple[list[Entry], int]:
    """Return a page of entries, newest first, and how many are wanted in all."""
    found = [one for one in reversed(_log().entries) if _is_wanted(one, wanted)]
    return found[(page - 1) * PAGE : page * PAGE], len(found)


def every() -> tuple[Entry, ...]:
    """Return all entries up to the first bad one, oldest first."""
    return _log().entries


def about(model: str) -> list[Entry]:
    """Return what the log tells of a model, oldest first."""
    return [one for one in _log().entries if one.subject == model]


def entry(number: str) -> Entry | None:
    """Return an entry by its number, None where the whole part of the log has none."""
    found = _log().entries
    return next((one for one in found if str(one.sequence) == number), None)


def deciders() -> dict[str, Entry]:
    """Return run -> the entry that tells of its decision."""
    layout = workspace()
    return _deciders(str(layout.root), stamp(log_file(layout)))


def named(one: Entry) -> list[Named]:
    """Hold the small files and the cards that an entry names against what is there."""
    layout = workspace()
    found = [*_files(layout, one), *_artifacts(layout, one)]
    return found[:_MOST_NAMED]


def named_count(one: Entry) -> int:
    """Return how many files and artifacts an entry names."""
    return len(_mapping(one, "files")) + len(_mapping(one, "artifacts"))


def _is_wanted(one: Entry, wanted: Wanted) -> bool:
    return (
        (not wanted.events or one.event in wanted.events)
        and (wanted.who is None or one.who == wanted.who)
        and (wanted.since is None or one.at[:10] >= wanted.since)
        and (wanted.subject is None or (one.subject or "").startswith(wanted.subject))
    )


def _files(layout: Layout, one: Entry) -> Iterator[Named]:
    for path, told in list(_mapping(one, "files").items())[:_MOST_NAMED]:
        file = _inside(layout, path)
        if file is None:
            yield Named(path, "file", "not looked at", "it does not lie in the workspace")
        elif not file.is_file():
            yield Named(path, "file", "gone", "there is no such file")
        elif file.stat().st_size > _MOST_BYTES:
            yield Named(path, "file", "not looked at", "it is large")
        elif _sha256(str(file), stamp(file)) == told:
            yield Named(path, "file", "matches", "its bytes are those that the entry tells of")
        else:
            yield Named(path, "file", "differs", "it holds other bytes than the entry tells of")


def _artifacts(layout: Layout, one: Entry) -> Iterator[Named]:
    for path, told in list(_mapping(one, "artifacts").items())[:_MOST_NAMED]:
        folder = _inside(layout, path)
        if folder is None:
            yield Named(path, "artifact", "not looked at", "it does not lie in the workspace")
        elif not folder.is_dir():
            yield Named(path, "artifact", "gone", "it was forgotten, or is kept elsewhere")
        elif _card_id(folder) == told:
            yield Named(path, "artifact", "matches", "its card is the one; its bytes are not read")
        else:
            yield Named(path, "artifact", "differs", "its card is another one")


@st.cache_data(max_entries=1024, show_spinner=False)
def _sha256(file: str, now: tuple[int, int] | None) -> str:
    """Hash a file once for each time that it was written."""
    del now
    return sha256_file(Path(file))


def _inside(layout: Layout, path: str) -> Path | None:
    """Return a path that a log names, None where it leads out of the workspace."""
    try:
        place = (layout.root / path).resolve()
    except (OSError, ValueError):
        return None
    return place if place.is_relative_to(layout.root) else None


def _card_id(folder: Path) -> str | None:
    try:
        return read_card(folder).id
    except LineageError:
        return None


def _mapping(one: Entry, key: str) -> dict[str, str]:
    found = one.evidence.get(key)
    return found if isinstance(found, dict) else {}


def _log() -> Checked:
    layout = workspace()
    return _checked(str(layout.root), stamp(log_file(layout)))


@st.cache_resource(max_entries=2, show_spinner=False)
def _checked(root: str, now: tuple[int, int] | None) -> Checked:
    """Check the log once for each state of its file; entries are frozen, so all share them."""
    del now
    return read_log(Layout(Path(root)))


@st.cache_resource(max_entries=2, show_spinner=False)
def _deciders(root: str, now: tuple[int, int] | None) -> dict[str, Entry]:
    return {
        path.split("/")[1]: one
        for one in _checked(root, now).entries
        if "decision" in one.evidence
        for path in _mapping(one, "files")
        if path.startswith("runs/")
    }
