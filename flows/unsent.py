"""Remembers that what a flow made may not have reached the remote, until a copy has arrived.

A flow may be killed, or its remote be away. Then no stage is left to run, but the copy still lacks.
"""

from __future__ import annotations

from pathlib import Path

from uni_moe.artifacts import Layout, write_text

_FILE = "unsent"


def expect_push(layout: Layout) -> None:
    """Note that there is about to be something that the remote lacks."""
    write_text(_file(layout), "")


def has_arrived(layout: Layout) -> None:
    """Note that the remote has everything."""
    _file(layout).unlink(missing_ok=True)


def is_unsent(layout: Layout) -> bool:
    """Say whether the remote may lack something."""
    return _file(layout).is_file()


def _file(layout: Layout) -> Path:
    return layout.state / _FILE
