"""The audit log: who decided what, when, why and on what evidence; an entry seals those before it.

`store/audit.jsonl` holds one entry a line, as canonical JSON: its number, the hash of the entry
before, its own hash, and what it tells. It only grows. A line that a crash tore stays where it is;
the next entry is a `recovery` that names the hash of the torn bytes. Torn is what begins as an
entry and breaks off; all other bytes that are no entry were changed.

Not covered: whoever may write the file can write all of it anew, with hashes that agree. Only a
head's hash that is kept elsewhere finds that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from uni_moe.artifacts import sha256_bytes
from uni_moe.records import canonical_json, sha256_text

BEGINNING = "0" * 64  # what the first entry names as the one before it
FORGOTTEN = "forgotten"
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)
_BEFORE_EVENT = re.compile(rb'\{"at":"[^"]*",(?:"b[^,]*,)?')
CLOCK_S = 300.0  # clocks of machines that share a store differ by less


@dataclass(frozen=True)
class Asked:
    """Who asks for a decision, why, and in which flow run."""

    who: str
    why: str
    flow_run: str | None = None


@dataclass(frozen=True)
class Telling:
    """What an entry tells. `evidence` is JSON; four of its keys are checked later on.

    `files` maps a path in the workspace to the sha256 of its bytes, `artifacts` a path to the id of
    the card there, `decision` is what the one file of `files` holds. What earlier entries name
    below the folder `forgotten` may be gone.
    """

    event: str  # such as registration, judgement, verdict, promotion, approval, forgetting
    who: str
    why: str
    subject: str | None  # the id of the model's card
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Entry(Telling):
    """A telling in its place. `at` is the clock's; `behind_s` says by how much it stood back."""

    sequence: int
    previous: str
    at: str
    behind_s: float | None
    hash: str

    def to_json(self) -> dict[str, Any]:
        """Return the entry as it is written, without absent fields."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def line(self) -> bytes:
        """The entry's line in the log."""
        return canonical_json(self.to_json()).encode() + b"\n"


@dataclass(frozen=True)
class Problem:
    """The entry that is not as it was written, and how that shows."""

    sequence: int
    what: str

    @property
    def text(self) -> str:
        """The problem as a sentence."""
        return f"entry {self.sequence}: {self.what}"


@dataclass(frozen=True)
class Checked:
    """What a log holds up to its first bad entry; notes tell what is odd and in order."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    @property
    def head(self) -> str:
        """The hash that stands for all entries."""
        return self.entries[-1].hash if self.entries else BEGINNING


def sealed(
    telling: Telling, *, sequence: int, previous: str, at: str, behind_s: float | None
) -> Entry:
    """Return a telling as an entry with its hash. Pure."""
    body = {**asdict(telling), "sequence": sequence, "previous": previous, "at": at}
    body["behind_s"] = behind_s
    told = {name: value for name, value in body.items() if value is not None}
    return Entry(**body, hash=sha256_text(canonical_json(told)))


def check(data: bytes, head: str | None = None) -> Checked:
    """Check a log's bytes: every entry whole, in its place, and naming the one before it. Pure.

    `head` is the hash of an entry that was once the last: a log without it was cut or written anew.
    """
    entries: list[Entry] = []
    notes: list[str] = []
    lines = data.split(b"\n")
    rest = lines.pop()
    place = 0
    problem: Problem | None = None
    while place < len(lines) and problem is None:
        entry = parsed(lines[place])
        if entry is None:
            torn = _acknowledged(lines, place)
            if torn is None:
                problem = Problem(len(entries) + 1, "its bytes are not those that were written")
                break
            notes.append(f"entry {len(entries) + 1}: a crash tore {torn - place} line(s) before it")
            place = torn
            continue
        problem = _misplaced(entry, entries, lines[place + 1 : place + 2])
        if problem is None:
            entries.append(entry)
            notes += _clock(entry)
        place += 1
    if problem is None and rest:
        problem = Problem(
            len(entries) + 1, "it is torn: a crash cut it short, or somebody did; it is not counted"
        )
    if problem is not None and problem.sequence <= len(entries):
        del entries[problem.sequence - 1 :]
    if problem is None and head not in (None, BEGINNING, *(entry.hash for entry in entries)):
        problem = Problem(
            len(entries) + 1,
            "it is gone: the log does not hold the kept head, so it was cut at its end, or all of "
            "it was written anew",
        )
    return Checked(tuple(entries), (problem,) if problem else (), tuple(notes))


def parsed(line: bytes) -> Entry | None:
    """Return the entry of a line, None where it is not exactly what `Entry.line` gives."""
    try:
        told = json.loads(line)
        if canonical_json(told).encode() != line:
            return None
        entry = Entry(**{"subject": None, "behind_s": None, **told})
        if datetime.fromisoformat(entry.at).tzinfo is None or not isinstance(entry.evidence, dict):
            return None
        own = {name: value for name, value in told.items() if name != "hash"}
        return entry if sha256_text(canonical_json(own)) == entry.hash else None
    except (ValueError, TypeError, RecursionError):
        return None


def are_torn(lines: Sequence[bytes]) -> bool:
    """Say whether lines can be entries whose writing crashes broke off. Pure.

    Behind a torn line nothing is written but its recovery, so each line but the first is one.
    """
    return all(
        _breaks_off(line) and (place == 0 or _may_recover(line, lines[:place]))
        for place, line in enumerate(lines)
    )


def _breaks_off(line: bytes) -> bool:
    """Say whether a line begins as an entry, and its object is still open at its end."""
    start = b'{"at":"'
    outside = _STRING.sub(b"", line)
    begins = line.startswith(start) or start.startswith(line)
    return begins and outside.count(b"{") > outside.count(b"}")


def _may_recover(line: bytes, torn: Sequence[bytes]) -> bool:
    """Say whether a line, as far as it goes, is the recovery of these torn ones."""
    head = _BEFORE_EVENT.match(line)
    rest = line[head.end() :] if head is not None else b""
    if head is None or rest.startswith(b'"b'):  # it breaks off before it says what it is
        return b'"event"' not in line
    bytes_torn = b"".join(one + b"\n" for one in torn)
    told = canonical_json(recovery_of(bytes_torn))
    begin = f'"event":"recovery","evidence":{told}'.encode()
    return rest.startswith(begin) or begin.startswith(rest)


def recovery_of(torn: bytes) -> dict[str, Any]:
    """Return what a recovery tells of torn lines, each with its end of line."""
    return {"torn_sha256": sha256_bytes(torn), "torn_bytes": len(torn) - 1}


def _misplaced(entry: Entry, before: Sequence[Entry], after: Sequence[bytes]) -> Problem | None:
    """Say why an entry cannot stand here; where two contradict, the one that follows decides."""
    expected = len(before) + 1
    if entry.sequence != expected:
        replaced = _names(after, entry) and before and before[-1].sequence == entry.sequence
        return Problem(
            expected - 1 if replaced and entry != before[-1] else expected,
            f"entry {entry.sequence} stands in place {expected}: some were removed, added or moved",
        )
    if entry.previous != (before[-1].hash if before else BEGINNING):
        return Problem(
            expected - 1 if before and (_names(after, entry) or not after) else expected,
            f"it does not fit its neighbour: entry {expected} names another one before it",
        )
    if before and entry.behind_s is None and behind_s(entry.at, before[-1].at) > CLOCK_S:
        return Problem(expected, f"it claims {entry.at}, a time before entry {expected - 1}")
    return None


def _names(after: Sequence[bytes], entry: Entry) -> bool:
    """Say whether the line behind an entry is one that names it as the one before."""
    following = parsed(after[0]) if after else None
    return following is not None and following.previous == entry.hash


def _clock(entry: Entry) -> list[str]:
    if entry.behind_s is None:
        return []
    return [
        f"entry {entry.sequence}: the clock stood {entry.behind_s:.0f} s before the entry above"
    ]


def behind_s(at: str, before: str) -> float:
    """Return by how much a time stands before another one."""
    return (datetime.fromisoformat(before) - datetime.fromisoformat(at)).total_seconds()


def _acknowledged(lines: Sequence[bytes], first: int) -> int | None:
    """Return the line of the recovery that names the torn lines from `first` on."""
    for place in range(first + 1, len(lines)):
        entry = parsed(lines[place])
        if entry is not None:
            torn = lines[first:place]
            told = recovery_of(b"".join(line + b"\n" for line in torn))
            known = entry.event == "recovery" and entry.evidence == told and are_torn(torn)
            return place if known else None
    return None
