"""One process per stage and workspace, which ends with the one that started it."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

from uni_moe.artifacts import Layout
from uni_moe.errors import StageError

_WATCH_S = 1.0
_PATIENCE_S = 3.0  # a process whose starter was killed ends within a second
_ABANDONED = 75  # sysexits.h: a temporary failure, try again


@contextmanager
def only_one(layout: Layout, name: str) -> Iterator[None]:
    """Keep two processes from doing one thing in a workspace; a dead one keeps nothing.

    Raises:
        StageError: another process is at it.
    """
    file = layout.state / f"{name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        if not _locked(stream):
            raise StageError(
                f"Another process runs {name} in this workspace.",
                cause="an earlier command is still at work.",
                remedy=f"wait for it or stop it: `fuser {file}` names it.",
            )
        yield


@contextmanager
def first_free(layout: Layout, names: Iterable[str]) -> Iterator[str]:
    """Take the first thing that no process is at, without waiting, and say which it is."""
    layout.state.mkdir(parents=True, exist_ok=True)
    for name in names:
        with (layout.state / f"{name}.lock").open("w") as stream:
            if _locked(stream, patience_s=0):
                yield name
                return


def is_at(layout: Layout, name: str) -> bool:
    """Say whether a process is at something at this moment."""
    file = layout.state / f"{name}.lock"
    if not file.is_file():
        return False
    with file.open() as stream:
        return not _locked(stream, patience_s=0)


@contextmanager
def in_turn(layout: Layout, name: str) -> Iterator[None]:
    """Do one thing after all who asked for it before, however long they take."""
    layout.state.mkdir(parents=True, exist_ok=True)
    with (layout.state / f"{name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def nobody_else(layout: Layout) -> Iterator[None]:
    """Keep stages, runs and copies from beginning in a workspace, as far as it has had any.

    Raises:
        StageError: another process is at work.
    """
    names = {"run", "ingest", "push", "pull", *(file.stem for file in layout.state.glob("*.lock"))}
    with ExitStack() as stack:
        for name in sorted(names):
            stack.enter_context(only_one(layout, name))
        yield


def _locked(stream: TextIO, patience_s: float = _PATIENCE_S) -> bool:
    """Take a file's lock, waiting a little for one who is about to end."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        else:
            return True


def end_with_starter(*, launched: bool) -> None:
    """End when the DVC or launcher that started this process is killed: nothing runs unwatched.

    A stage started by hand goes on after its shell is gone, as under nohup.
    """
    if launched or "DVC_STAGE" in os.environ:
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(_ABANDONED)
