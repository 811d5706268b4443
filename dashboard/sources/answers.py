"""Questions to models: whether they may be asked here, and the one worker that answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import streamlit as st

from dashboard.answering import Job, Keeper, Question, Upload
from dashboard.fitting import Room, room
from dashboard.serving import ASK as CHOICES
from dashboard.sources.workspace import workspace

VARIABLE = "UNI_MOE_DASHBOARD_ASK"


def choice() -> str:
    """Return whether models may be asked: on, off, or auto, where they fit into memory."""
    told = os.environ.get(VARIABLE) or (sys.argv[2] if len(sys.argv) > 2 else CHOICES[0])
    return told if told in CHOICES else CHOICES[0]


def needed(models: Sequence[Path]) -> Room:
    """Return what models need, and what is free, the worker's own memory counted as free."""
    found = room(models)
    pid = keeper().pid()
    if pid is None or found.free is None:
        return found
    return Room(found.weights, found.free + _resident_bytes(pid))


def submit(
    text: str, models: Mapping[str, Path], uploads: Sequence[Upload], max_new_tokens: int
) -> Job:
    """Ask models one after the other; the job is kept under its id.

    Raises:
        StageError: too many questions wait.
    """
    return keeper().submit(Question(text, models, uploads, max_new_tokens))


@st.cache_resource(show_spinner=False)
def keeper() -> Keeper:
    """Return the server's one keeper of the worker."""
    root = str(workspace().root)
    return Keeper([sys.executable, "-m", "uni_moe", "--workspace", root, "answer-worker"])


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
