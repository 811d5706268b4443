"""The audit log as a file: read and grown under a lock, forced to the disk, never rewritten."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from uni_moe.artifacts import Layout, sha256_file, sync_folder
from uni_moe.audit import (
    BEGINNING,
    CLOCK_S,
    Checked,
    Entry,
    Telling,
    are_torn,
    behind_s,
    check,
    parsed,
    recovery_of,
    sealed,
)
from uni_moe.errors import LineageError

REGISTRATION, VERDICT = "registration.json", "verdict.json"  # decisions that run folders hold


def log_file(layout: Layout) -> Path:
    """Return where the log lies."""
    return layout.store / "audit.jsonl"


def read_log(layout: Layout, head: str | None = None) -> Checked:
    """Read and check a workspace's log; one that is not there holds nothing."""
    file = log_file(layout)
    if not file.is_file():
        return check(b"", head)
    with file.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        return check(stream.read(), head)


def sound_log(layout: Layout) -> Checked:
    """Read a log that decisions may rest on; a torn end is left out, as the next entry will say.

    Raises:
        LineageError: the log is broken.
    """
    file = log_file(layout)
    if not file.is_file():
        return check(b"")
    with file.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        return _sound(layout, _whole(stream.read())[0])


def last_decision(layout: Layout) -> str | None:
    """Return the path of the last decision that the log tells of, None where it tells of none.

    The log is not checked, so that this is cheap: it only says where to look.
    """
    file = log_file(layout)
    lines = file.read_bytes().split(b"\n") if file.is_file() else []
    for line in reversed(lines):
        entry = parsed(line) if b'"decision"' in line else None
        if entry is not None and "decision" in entry.evidence:
            return next(iter(entry.evidence["files"]))
    return None


def append(layout: Layout, telling: Telling) -> Entry:
    """Write an entry behind the others and force it to the disk.

    A log that begins in a workspace with a past tells of its decisions first.

    Raises:
        LineageError: the log is broken; nothing is written.
    """
    with _opened(layout) as descriptor:
        data = _bytes(descriptor)
        whole, torn = _whole(data)
        checked = _sound(layout, whole)
        tellings = [telling]
        if torn:
            tellings.insert(0, _recovery(torn, telling.who))
        if not checked.entries and (past := decisions(layout)):
            tellings.insert(-1, _beginning(past, telling.who))
        last = checked.entries[-1] if checked.entries else None
        text = b"\n" if data and not data.endswith(b"\n") else b""
        for one in tellings:
            last = _next(one, last)
            text += last.line
        _write(descriptor, text)
    sync_folder(layout.store)
    assert last is not None, "at least one entry was written"
    return last


def whole_log(layout: Layout) -> bytes:
    """Return the bytes of a log that decisions may rest on, without a torn end.

    Raises:
        LineageError: the log is broken.
    """
    file = log_file(layout)
    if not file.is_file():
        return b""
    with file.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        whole = _whole(stream.read())[0]
    _sound(layout, whole)
    return whole


def continue_log(layout: Layout, longer: bytes) -> bool:
    """Write what another log tells behind ours; say whether it begins with ours."""
    with _opened(layout) as descriptor:
        data = _bytes(descriptor)
        if not longer.startswith(data):
            return False
        _write(descriptor, longer[len(data) :])
    sync_folder(layout.store)
    return True


def decisions(layout: Layout) -> dict[str, str]:
    """Return the decisions that run folders hold, by path, with the hash of each."""
    files = [file for name in (REGISTRATION, VERDICT) for file in layout.runs.glob(f"*/{name}")]
    return {layout.name_of(file): sha256_file(file) for file in sorted(files)}


def _sound(layout: Layout, whole: bytes) -> Checked:
    checked = check(whole)
    if not checked.problems:
        return checked
    raise LineageError(
        f"The audit log {log_file(layout)} is broken: {checked.problems[0].text}.",
        cause="it was changed after it had been written.",
        remedy="nothing was changed by this command. Bring the log back from a copy; if there is "
        "none, move it aside: the next entry begins a new one, which says that there is a past.",
    )


def _whole(data: bytes) -> tuple[bytes, bytes]:
    """Split a log before torn bytes at its end; a last entry that only lacks its end is whole.

    Torn is what breaks off at the end, and before it what broke off and was not recovered. Where
    other bytes stand, nothing is torn: they were changed, and the check says so.
    """
    lines = data.split(b"\n")
    if not lines[-1]:
        return data, b""
    if parsed(lines[-1]) is not None:
        return data + b"\n", b""
    count = len(lines) - 1
    while count and parsed(lines[count - 1]) is None:
        count -= 1
    if not are_torn(lines[count:]):
        return data + b"\n", b""
    whole = b"".join(line + b"\n" for line in lines[:count])
    return whole, data[len(whole) :]


def _recovery(torn: bytes, who: str) -> Telling:
    return Telling("recovery", who, "a crash tore the line above", None, recovery_of(torn + b"\n"))


def _beginning(past: Mapping[str, str], who: str) -> Telling:
    why = "the log begins; these decisions fell before it"
    return Telling("beginning", who, why, None, {"files": dict(past)})


def _next(telling: Telling, last: Entry | None) -> Entry:
    now = datetime.now(UTC).isoformat()
    behind = behind_s(now, last.at) if last is not None else 0.0
    return sealed(
        telling,
        sequence=last.sequence + 1 if last is not None else 1,
        previous=last.hash if last is not None else BEGINNING,
        at=now,
        behind_s=round(behind, 3) if behind > CLOCK_S else None,
    )


@contextmanager
def _opened(layout: Layout) -> Iterator[int]:
    """Open the log for one writer at a time; the file is never replaced, so it is its own lock."""
    layout.store.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log_file(layout), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _bytes(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0)


def _write(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]
    os.fsync(descriptor)
