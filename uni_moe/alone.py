"""One process per stage and workspace, which ends with the one that started it.

Whoever is at work also holds a lock that all workers share, so that one who must have a workspace
for himself knows of work that was never done in it before.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from uni_moe.artifacts import Layout
from uni_moe.errors import StageError

_WATCH_S = 1.0
_PATIENCE_S = 3.0  # a process whose starter was killed ends within a second
_MOMENT_S = 0.3  # who only looks whether somebody is at a thing holds its lock that long
_ABANDONED = 75  # sysexits.h: a temporary failure, try again


_WORK = "work"


@contextmanager
def only_one(layout: Layout, name: str) -> Iterator[None]:
    """Keep two processes from doing one thing in a workspace; a dead one keeps nothing.

    Raises:
        StageError: another process is at it, or has the workspace for itself.
    """
    with beside_others(layout), one_standing(layout, name):
        yield


@contextmanager
def one_standing(layout: Layout, name: str) -> Iterator[None]:
    """Keep two processes from standing for one thing; whoever stands is not at work by that.

    Raises:
        StageError: another process does.
    """
    with _held(layout, name, fcntl.LOCK_EX) as file:
        if file is not None:
            raise StageError(
                f"Another process runs {name} in this workspace.",
                cause="an earlier command is still at work.",
                remedy=f"wait for it or stop it: `fuser {file}` names it.",
            )
        yield


@contextmanager
def first_free(layout: Layout, names: Iterable[str]) -> Iterator[str]:
    """Take the first of endless things that no process is at, hardly waiting; say which it is.

    Raises:
        StageError: a process has the workspace for itself.
    """
    with beside_others(layout):
        for name in names:
            with _held(layout, name, fcntl.LOCK_EX, patience_s=_MOMENT_S) as busy:
                if busy is None:
                    yield name
                    return


def is_at(layout: Layout, name: str) -> bool:
    """Say whether a process is at something at this moment."""
    file = layout.state / f"{name}.lock"
    if not file.is_file():
        return False
    with file.open() as stream:
        return not _locked(stream, fcntl.LOCK_SH, patience_s=0)


@contextmanager
def in_turn(layout: Layout, name: str) -> Iterator[None]:
    """Do one thing after all who asked for it before, however long they take."""
    layout.state.mkdir(parents=True, exist_ok=True)
    with (layout.state / f"{name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def nobody_else(layout: Layout) -> Iterator[None]:
    """Keep stages, runs, copies and decisions from beginning in a workspace, also new ones.

    Raises:
        StageError: another process is at work.
    """
    with _held(layout, _WORK, fcntl.LOCK_EX) as file:
        if file is not None:
            raise StageError(
                f"Another process runs {_at_work(layout)} in this workspace.",
                cause="a stage, a run, a push, a pull, a decision or a restore has not ended yet.",
                remedy=f"wait for it or stop it: `fuser {file}` names it.",
            )
        yield


def _at_work(layout: Layout) -> str:
    names = sorted(file.stem for file in layout.state.glob("*.lock") if file.stem != _WORK)
    return ", ".join(name for name in names if is_at(layout, name)) or "something"


@contextmanager
def beside_others(layout: Layout) -> Iterator[None]:
    """Be one of those at work, so that nobody has the workspace for himself meanwhile.

    Raises:
        StageError: somebody has.
    """
    with _held(layout, _WORK, fcntl.LOCK_SH) as file:
        if file is not None:
            raise StageError(
                "Another process has this workspace for itself.",
                cause="`uni-moe gc` or `uni-moe remove` is about to end.",
                remedy="give the same command again in a moment.",
            )
        yield


@contextmanager
def _held(
    layout: Layout, name: str, how: int, patience_s: float = _PATIENCE_S
) -> Iterator[Path | None]:
    """Hold a lock as long as the block lasts; give its file where somebody else has it."""
    file = layout.state / f"{name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        yield None if _locked(stream, how, patience_s) else file


def _locked(stream: TextIO, how: int, patience_s: float = _PATIENCE_S) -> bool:
    """Take a file's lock, waiting a little for one who is about to end."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(stream, how | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        else:
            return True


def has_ended(pid: int) -> bool:
    """Say whether a process of this machine has ended, be it that its parent never asked how."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it is somebody else's
        pass
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # ended meanwhile, which the next look finds, or not Linux
        return False
    return told.rpartition(")")[2].split()[:1] == ["Z"]


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
