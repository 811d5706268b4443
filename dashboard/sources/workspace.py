"""The workspace that is shown, and answers that are kept until it changes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import pandas as pd  # whole, before keys are hashed: Streamlit looks into it while another loads it
import streamlit as st

from uni_moe.artifacts import Layout

assert pd.Timestamp
Given = ParamSpec("Given")
Answer = TypeVar("Answer")
WORKSPACE = "UNI_MOE_DASHBOARD_WORKSPACE"
_DATABASE = "UNI_MOE_DATABASE_URL"
_SERVER_S = 5.0  # so long an answer of a database server counts as new
_KEPT = 1024  # answers of all questions


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
        layout.params,
    )
    server = (int(time.time() / _SERVER_S),) if os.environ.get(_DATABASE) else ()
    return (*(stamp(file) for file in files), *server)


def remembered(ask: Callable[..., Answer]) -> Callable[..., Answer]:
    """Keep answers of a function `ask(layout, *arguments)` until the workspace changes.

    Called without the layout. Arguments are hashable; answers are data that pickle.
    """

    @st.cache_data(max_entries=_KEPT, show_spinner=False)
    def kept(
        question: str, root: str, now: tuple[object, ...], *given: object, **named: object
    ) -> Answer:
        del question, now  # parts of the key alone: all questions share one cache
        return ask(Layout(Path(root)), *given, **named)

    question = f"{ask.__module__}.{ask.__qualname__}"

    @wraps(ask)
    def asked(*given: object, **named: object) -> Answer:
        layout = workspace()
        return kept(question, str(layout.root), state(layout), *given, **named)

    return asked


def stamp(file: Path) -> tuple[int, int] | None:
    """Return what differs when a file was written to; None where it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
