"""Remembers which flow may owe people a verdict, until it is kept for them.

A flow that is killed right after the gate has spoken owes it to the next one in its workspace.
"""

from __future__ import annotations

from pathlib import Path

from uni_moe.artifacts import Layout, read_json, write_text
from uni_moe.registry.gate import Verdict
from uni_moe.registry.read import verdicts
from uni_moe.runs import RECORD

_FILE = "untold"


def expect_verdict(layout: Layout, flow_run: str) -> None:
    """Note that a flow run is about to ask the gate."""
    write_text(_file(layout), flow_run)


def is_kept(layout: Layout) -> None:
    """Note that its verdict is kept for people."""
    _file(layout).unlink(missing_ok=True)


def owed(layout: Layout) -> Verdict | None:
    """Return the verdict of a flow that broke off before people could know it."""
    if not _file(layout).is_file():
        return None
    flow_run = _file(layout).read_text(encoding="utf-8")
    said = (
        one.verdict
        for one in reversed(verdicts(layout))
        if _flow_run(layout.runs / one.run / RECORD) == flow_run
    )
    return next(said, None)


def _flow_run(record: Path) -> object:
    return read_json(record).get("flow_run") if record.is_file() else None


def _file(layout: Layout) -> Path:
    return layout.state / _FILE
