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
from uni_moe.errors import UniMoeError
from uni_moe.registry.revision import revision

assert pd.Timestamp
Given = ParamSpec("Given")
Answer = TypeVar("Answer")
WORKSPACE = "UNI_MOE_DASHBOARD_WORKSPACE"
_DATABASE = "UNI_MOE_DATABASE_URL"
_SERVER_S = 5.0  # so long an answer of a database server counts as new
_KEPT = 256  # answers of all questions: each is some kilobytes, few are a megabyte
_KEPT_SETTLED = 64
_LONGEST = "1h"  # what nobody asks for so long is dropped; also what a lost hint may cost


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
        layout.store / "audit.jsonl",
        layout.store,
        layout.runs,
        layout.artifacts,
        layout.params,
    )
    server = () if not os.environ.get(_DATABASE) else (_revision(str(layout.root)),)
    return (_log_of(index), *(stamp(file) for file in files), *server)


def _log_of(index: Path) -> tuple[int, int] | None:
    """Return what differs when SQLite's log grew. A reader makes an empty one and takes it away."""
    found = stamp(index.with_name(f"{index.name}-wal"))
    return None if found is None or not found[1] else found


@st.cache_data(max_entries=4, ttl=_SERVER_S, show_spinner=False)
def _revision(root: str) -> tuple[object, ...]:
    """Ask a database server whether it was written to; one that does not tell is new each time."""
    try:
        told = revision(Layout(Path(root)))
    except UniMoeError:  # the question itself tells it, with cause and remedy
        told = None
    return ("clock", int(time.time() / _SERVER_S)) if told is None else told


def remembered(ask: Callable[..., Answer]) -> Callable[..., Answer]:
    """Keep answers of a function `ask(layout, *arguments)` until the workspace changes.

    Called without the layout. Arguments are hashable; answers are data that pickle.
    """

    @st.cache_data(max_entries=_KEPT, ttl=_LONGEST, show_spinner=False)
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


class _NotSettledError(Exception):
    """Something may still come to an answer."""


def settled(
    is_whole: Callable[[Answer], bool],
) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Keep answers that follow from ids among the arguments alone, whatever else changes.

    An answer that is not whole yet is kept until the workspace changes, as by `remembered`.
    """

    def made(ask: Callable[..., Answer]) -> Callable[..., Answer]:
        question = f"{ask.__module__}.{ask.__qualname__}"
        until_then = remembered(ask)

        @st.cache_data(max_entries=_KEPT_SETTLED, ttl=_LONGEST, show_spinner=False)
        def kept(question: str, root: str, *given: object, **named: object) -> Answer:
            del question, root  # parts of the key alone
            answer = until_then(*given, **named)
            if not is_whole(answer):
                raise _NotSettledError
            return answer

        @wraps(ask)
        def asked(*given: object, **named: object) -> Answer:
            try:
                return kept(question, str(workspace().root), *given, **named)
            except _NotSettledError:
                return until_then(*given, **named)

        return asked

    return made


def stamp(file: Path) -> tuple[int, int] | None:
    """Return what differs when a file was written to; None where it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
