"""Remembers which flow may owe people a verdict, until it is kept for them.

A flow that is killed right after the gate has spoken owes it to the next one in its workspace.
"""

from __future__ import annotations

from pathlib import Path

from uni_moe.artifacts import Layout, read_json, write_text
from uni_moe.registry.gate import Verdict
from uni_moe.registry.indexing import catch_up
from uni_moe.registry.read import verdicts
from uni_moe.runs import RECORD

_FILE = "untold"


def expect_verdict(layout: Layout, flow_run: str, reason: str) -> None:
    """Note that a flow run is about to ask the gate, and what it was asked for."""
    write_text(_file(layout), f"{flow_run}\n{reason}")


def is_kept(layout: Layout) -> None:
    """Note that its verdict is kept for people."""
    _file(layout).unlink(missing_ok=True)


def owed(layout: Layout) -> tuple[str, Verdict] | None:
    """Return the reason and the verdict of a flow that broke off before people could know it.

    The flow may have been killed before the index knew its verdict.

    Raises:
        UniMoeError: the index cannot catch up.
    """
    if not _file(layout).is_file():
        return None
    flow_run, _, reason = _file(layout).read_text(encoding="utf-8").partition("\n")
    catch_up(layout, data=False)
    said = (
        (reason, one.verdict)
        for one in reversed(verdicts(layout))
        if _flow_run(layout.runs / one.run / RECORD) == flow_run
    )
    return next(said, None)


def _flow_run(record: Path) -> object:
    return read_json(record).get("flow_run") if record.is_file() else None


def _file(layout: Layout) -> Path:
    return layout.state / _FILE
