"""DVC's table of who reads and writes what, freed of the dead.

DVC drops the entry of a process that was killed, but takes any process with its number for it: one
that got the number later, or the dead one itself where nobody has collected it yet, as in many
containers. And a kill may leave half a table.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path, PurePath
from typing import Any

# `dvc repro`, `python -m uni_moe.leash dvc …`, `uni-moe run`, `python -m uni_moe`, and their like
_PROGRAMS, _FIRST_WORDS = ("dvc", "uni-moe", "uni_moe"), 5


def release_dead_locks(root: Path, lock: Callable[[Path], AbstractContextManager[object]]) -> None:
    """Take out of a workspace's table every process that is no living DVC.

    Args:
        root: the workspace.
        lock: DVC's own lock on a file, beside which no other DVC writes the table.
    """
    table = root / ".dvc" / "tmp" / "rwlock"
    if not table.exists():
        return
    with lock(table.with_name("rwlock.lock")):
        try:
            locks = json.loads(table.read_text(encoding="utf-8"))
        except ValueError:
            locks = {}
        table.write_text(json.dumps(_of_the_living(locks)), encoding="utf-8")


def _of_the_living(locks: dict[str, Any]) -> dict[str, Any]:
    write = {path: who for path, who in locks.get("write", {}).items() if _lives(who)}
    read = {
        path: [who for who in readers if _lives(who)]
        for path, readers in locks.get("read", {}).items()
    }
    return {"write": write, "read": {path: readers for path, readers in read.items() if readers}}


def _lives(who: dict[str, Any]) -> bool:
    """Say whether the process behind an entry is alive and runs DVC."""
    import psutil  # type: ignore[import-untyped] # comes with dvc

    try:
        process = psutil.Process(int(who["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return any(PurePath(word).name in _PROGRAMS for word in process.cmdline()[:_FIRST_WORDS])
    except psutil.Error:
        return False
