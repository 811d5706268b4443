"""The workspace that is shown, and answers that are kept until it changes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import streamlit as st

from uni_moe.artifacts import Layout

Given = ParamSpec("Given")
Answer = TypeVar("Answer")
WORKSPACE = "UNI_MOE_DASHBOARD_WORKSPACE"
_DATABASE = "UNI_MOE_DATABASE_URL"
_SERVER_S = 5.0  # so long an answer of a database server counts as new
_KEPT = 128  # answers of one question


def workspace() -> Layout:
    """Return the workspace that this dashboard was started for; default: this folder."""
    told = os.environ.get(WORKSPACE) or (sys.argv[1] if len(sys.argv) > 1 else ".")
    return Layout(Path(told).resolve())


def state(layout: Layout) -> tuple[object, ...]:
    """Return what differs when anything that is read may differ: sizes and times of a few files.

    Run folders that grow are not in it: what is live is read from them anew, by who shows it.
    """
    index = layout.registry
    files = (
        index,
        index.with_name(f"{index.name}-wal"),
        layout.store / "audit.jsonl",
        layout.store,
        layout.runs,
        layout.artifacts,
    )
    server = (int(time.time() / _SERVER_S),) if os.environ.get(_DATABASE) else ()
    return (*(_stamp(file) for file in files), *server)


def remembered(ask: Callable[..., Answer]) -> Callable[..., Answer]:
    """Keep answers of a function `ask(layout, *arguments)` until the workspace changes.

    Called without the layout. Arguments are hashable; answers are data that pickle.
    """

    def kept(root: str, now: tuple[object, ...], *given: object, **named: object) -> Answer:
        del now  # part of the key alone
        return ask(Layout(Path(root)), *given, **named)

    # A cache is found by these names: without them all questions would share one, and its answers.
    kept.__module__, kept.__qualname__ = ask.__module__, ask.__qualname__
    answer = st.cache_data(max_entries=_KEPT, show_spinner=False)(kept)

    @wraps(ask)
    def asked(*given: object, **named: object) -> Answer:
        layout = workspace()
        return answer(str(layout.root), state(layout), *given, **named)

    return asked


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
