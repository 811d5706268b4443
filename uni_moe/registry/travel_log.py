"""The audit log on its way to a store and back: it only grows there, too.

A part is `audit/BEGIN-END-HASH`: the bytes of the log from one place to another, and the hash of
all bytes up to there. So one listing tells whether what a store keeps is the beginning of ours.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from uni_moe.artifacts import Layout, sha256_bytes
from uni_moe.audit import Telling, check
from uni_moe.audit_log import append, continue_log, decisions, log_file, sound_log, whole_log
from uni_moe.errors import LineageError
from uni_moe.registry.parcels import Parcel, fetched_aside, give_up, is_wrong
from uni_moe.runs import user
from uni_moe.storage.blobs import BlobStore
from uni_moe.storage.sums import sums_of

Say = Callable[[str], None]
AUDIT = "audit/"
_PART = re.compile(r"audit/([0-9]{12})-([0-9]{12})-([0-9a-f]{64})")


@dataclass(frozen=True)
class Part:
    """Bytes of a log that a store keeps; the hash is of all bytes up to the end."""

    begin: int
    end: int
    sha256: str

    @property
    def key(self) -> str:
        """The key that it is kept under."""
        return f"{AUDIT}{self.begin:012}-{self.end:012}-{self.sha256}"


def parts_of(store: BlobStore) -> list[Part]:
    """Return the parts of a store's log, in order.

    Raises:
        LineageError: two workspaces wrote there, or a part is gone.
        StoreError: the store cannot be reached or refuses.
    """
    found = (_PART.fullmatch(key) for key in store.keys(AUDIT))
    parts = sorted(
        (Part(int(one[1]), int(one[2]), one[3]) for one in found if one is not None),
        key=lambda part: (part.begin, part.end),
    )
    if [part.begin for part in parts] != [0, *(part.end for part in parts)][: len(parts)]:
        raise _other_log("its parts do not follow one another: one is gone, or two wrote at once.")
    return parts


def part_to_send(layout: Layout, store: BlobStore) -> Part | None:
    """Return the end of our log that a store does not keep yet; None where it keeps all.

    Raises:
        LineageError: our log is broken, or neither log is the beginning of the other.
        StoreError: the store cannot be reached or refuses.
    """
    ours, parts = whole_log(layout), parts_of(store)
    if _begins(ours, parts):
        end = parts[-1].end if parts else 0
        return Part(end, len(ours), sha256_bytes(ours)) if end < len(ours) else None
    if not _log(layout, store, parts).startswith(ours):
        raise _other_log("neither is the beginning of the other.")
    return None


def send_part(layout: Layout, store: BlobStore, part: Part, *, again: bool = False) -> None:
    """Send a part of our log; `again` is for one that is wrong in the store.

    Raises:
        LineageError: the store keeps other content there.
        StoreError: the store cannot be reached, refuses, or is full.
    """
    layout.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.state, prefix="sent-") as name:
        folder = Path(name)
        (folder / log_file(layout).name).write_bytes(whole_log(layout)[part.begin : part.end])
        if again:
            give_up(store, Parcel(part.key, folder, sums_of(folder), part.end - part.begin))
        store.put_folder(part.key, folder)


def mend_log(layout: Layout, store: BlobStore, say: Say) -> None:
    """Read every byte of a store's log; send again what is wrong and what we hold.

    Raises:
        LineageError: it is wrong, and ours does not reach so far.
        StoreError: the store cannot be reached, refuses, or is full.
    """
    ours = whole_log(layout)
    for part in parts_of(store):
        if not is_wrong(store, part.key):
            continue
        if not _begins(ours, [part]):
            raise _other_log("it is wrong there, and ours does not hold that part.")
        say(f"  {part.key} is wrong in the store; it is sent again")
        send_part(layout, store, part, again=True)


def fetch_log(layout: Layout, store: BlobStore, say: Say) -> None:
    """Let our log go on as the store's does; where it has its own way, tell it of what came.

    Raises:
        LineageError: our log or the store's is broken.
        StoreError: the store cannot be reached or refuses, or our disk has no room.
    """
    ours, parts = whole_log(layout), parts_of(store)
    head = check(ours).head
    if not _begins(ours, parts):
        theirs = _log(layout, store, parts)
        head = check(theirs).head
        if continue_log(layout, theirs):
            say(f"audit log: {len(check(theirs).entries)} entries")
        elif not theirs.startswith(ours):
            say("note: the remote's audit log is another one than ours; ours stays")
    came = _untold(layout, store) if whole_log(layout) else {}
    if came:
        evidence = {"files": came, "head": head}
        append(layout, Telling("arrival", user(), "they came from the remote", None, evidence))


def _begins(ours: bytes, parts: Sequence[Part]) -> bool:
    """Say whether a store's log is the beginning of ours, or there is none."""
    return not parts or sha256_bytes(ours[: parts[-1].end]) == parts[-1].sha256


def _log(layout: Layout, store: BlobStore, parts: Sequence[Part]) -> bytes:
    """Return a store's log, checked."""
    data = b""
    for part in parts:
        with fetched_aside(layout, store, part.key) as folder:
            data += (folder / log_file(layout).name).read_bytes()
        if len(data) != part.end or sha256_bytes(data) != part.sha256:
            raise _other_log(f"{part.key} does not hold what its name says.")
    problems = check(data).problems
    if problems:
        raise _other_log(f"{problems[0].text}.")
    return data


def _untold(layout: Layout, store: BlobStore) -> dict[str, str]:
    """Return decisions that no entry tells of and that the store keeps as they are here."""
    told: set[str] = set()
    for entry in sound_log(layout).entries:
        told |= set(entry.evidence.get("files", ()))
    found = {path: sha256 for path, sha256 in decisions(layout).items() if path not in told}
    return {path: sha256 for path, sha256 in found.items() if _kept(store, path) == sha256}


def _kept(store: BlobStore, path: str) -> str | None:
    key, _, name = path.rpartition("/")  # runs/ID is the path of a run and its key
    return store.sums(key).get(name) if store.has(key) else None


def _other_log(cause: str) -> LineageError:
    return LineageError(
        "The audit log in the store is not the one of this workspace.",
        cause=cause,
        remedy="find out who wrote there: `uni-moe audit verify --head HASH` holds ours to a head "
        "that was kept elsewhere. A workspace with decisions of its own needs a remote of its own: "
        "`uni-moe remote set URL` with another prefix.",
    )
