"""Bulky records of old runs: what goes of a run's folder, and the receipt that stays.

Numbers, events, decisions and the run's record stay for good. Heartbeats say nothing once a run
has ended, and the load of every expert at every step is summed up in its metrics.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from uni_moe.artifacts import Layout, sha256_file, write_json
from uni_moe.audit import Asked
from uni_moe.registry.cards import all_runs
from uni_moe.registry.parcels import REMOVED
from uni_moe.runs import HEARTBEATS, ROUTING

BULKY = (HEARTBEATS, ROUTING)
LEAST_BYTES = 2**16  # less is not worth a receipt


def old_runs(layout: Layout, kept: Container[str], before: datetime) -> Iterator[Path]:
    """Give the folders of runs that ended before a time, made nothing that stays, and are bulky.

    Args:
        layout: the workspace.
        kept: the ids of cards that stay.
        before: when a run must have ended, or was heard of last.
    """
    for folder, record in all_runs(layout):
        ended = datetime.fromisoformat(record.get("ended") or record["started"])
        made = record["artifacts"].values()
        if record["status"] == "running" or ended > before or any(one in kept for one in made):
            continue
        files = [folder / name for name in BULKY if (folder / name).is_file()]
        if sum(file.stat().st_size for file in files) >= LEAST_BYTES:
            yield folder


def thin(folder: Path, asked: Asked) -> None:
    """Remove what is bulky of a run; a receipt tells what it was. Twice is as once."""
    told: dict[str, Any] = {
        name: {"sha256": sha256_file(folder / name), "size_bytes": (folder / name).stat().st_size}
        for name in BULKY
        if (folder / name).is_file()
    }
    if not (folder / REMOVED).is_file():
        facts: Mapping[str, Any] = {"files": told, "who": asked.who, "why": asked.why}
        write_json(folder / REMOVED, {**facts, "at": datetime.now(UTC).isoformat()})
    for name in told:
        (folder / name).unlink(missing_ok=True)
