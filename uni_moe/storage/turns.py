"""Who is at work in a remote: pushes beside each other, or one that removes, never both.

Everyone writes a mark of its own first and then looks for those of others. S3 lists what was
written, so of two who begin at once at least one sees the other, and goes. A mark is written again
while its owner lives; one that stayed as it was for five minutes is a dead one's, and so is one of
this machine whose process is gone. Ages are told by the clock of whoever keeps the marks. A plain
`dvc push` leaves no mark.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Literal

from uni_moe.errors import StoreError
from uni_moe.storage.objects import Objects, Stored

TURNS = "turns"  # the part of a remote that holds the marks
Word = Literal["push", "gc"]
BEAT_S, DEAD_AFTER_S = 60.0, 300.0


@contextmanager
def at_work(marks: Objects, word: Word) -> Iterator[None]:
    """Tell others that we push to a remote, or remove from it, as long as the block lasts.

    Raises:
        StoreError: somebody is at work there beside whom we may not, or the remote cannot be
            reached or refuses; nothing was done.
    """
    mine, about = f"{word}-{secrets.token_hex(8)}", f"{socket.gethostname()} {os.getpid()}".encode()
    marks.put(mine, about)
    stop = threading.Event()
    try:
        _make_way(marks, mine, word)
        beat = threading.Thread(target=_beat, args=(marks, mine, about, stop), daemon=True)
        beat.start()
        try:
            yield
        finally:
            stop.set()
            beat.join()
    finally:
        with suppress(StoreError):  # of a server that stopped: the mark dies by itself
            marks.remove(mine)


def in_the_way(there: Mapping[str, Stored], mine: str, word: Word) -> tuple[list[str], list[str]]:
    """Return the marks that we may not work beside, and those of the dead. Pure."""
    now_s = there[mine].at_s if mine in there else 0.0
    others = {name: now_s - one.at_s for name, one in there.items() if name != mine}
    dead = sorted(name for name, age_s in others.items() if age_s > DEAD_AFTER_S)
    bad = sorted(
        name for name in others.keys() - set(dead) if word == "gc" or name.partition("-")[0] != word
    )
    return bad, dead


def _make_way(marks: Objects, mine: str, word: Word) -> None:
    bad, dead = in_the_way(marks.listed(), mine, word)
    dead += [name for name in bad if _is_gone(marks.content(name))]
    bad = [name for name in bad if name not in dead]
    for name in dead:
        marks.remove(name)
    if bad:
        who = (marks.content(bad[0]) or b"somebody").decode(errors="replace")
        does = {"push": "sends to", "gc": "removes from"}.get(bad[0].partition("-")[0], "uses")
        raise StoreError(
            f"Another process {does} the remote at this moment: {who} (host, process).",
            cause="what is being sent and what is being removed must not meet.",
            remedy="wait until it has ended, then give the same command again; a killed one is "
            f"passed over after {DEAD_AFTER_S / 60:.0f} minutes.",
        )


def _is_gone(about: bytes | None) -> bool:
    """Say whether a mark's process is one of this machine that does not live."""
    host, _, pid = (about or b"").decode(errors="replace").rpartition(" ")
    if about is None or host != socket.gethostname() or not pid.isdecimal():
        return about is None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _beat(marks: Objects, mine: str, about: bytes, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        with suppress(StoreError, OSError):
            marks.put(mine, about)
