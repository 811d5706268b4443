"""Finds the truth on disk: cards of artifacts and records of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from uni_moe.artifacts import CARD, Layout, read_json
from uni_moe.records import Card

DEAD_AFTER_S = 30.0
CARDS = "cards"


def all_cards(layout: Layout) -> dict[str, tuple[str, Card]]:
    """Return id -> (name in the workspace, card), of artifacts that are here or in the store."""
    found: dict[str, tuple[str, Card]] = {}
    for file in sorted(layout.store.glob(f"*/{CARDS}/*.json")):
        card = Card.from_json(read_json(file))
        found[card.id] = (file.stem.replace("--", "/"), card)
    for file in sorted(layout.artifacts.glob(f"**/{CARD}")):
        card = Card.from_json(read_json(file))
        found[card.id] = (layout.name_of(file.parent), card)
    return found


def card_file(name: str) -> str:
    """Return the name of a card's file in the store."""
    return f"{name.replace('/', '--')}.json"


def all_runs(layout: Layout) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Return every run's folder and record; a run whose heart stopped has the status `died`."""
    for file in sorted(layout.runs.glob("*/run.json")):
        record = read_json(file)
        if record["status"] == "running" and _silent_s(file.parent) > DEAD_AFTER_S:
            record["status"] = "died"
        yield file.parent, record


def json_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Return the whole lines of a live file; a half-written last line is not there yet."""
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def _silent_s(folder: Path) -> float:
    beats = list(json_lines(folder / "heartbeat.jsonl"))
    if not beats:
        return float("inf")
    last = datetime.fromisoformat(beats[-1]["time"])
    return (datetime.now(UTC) - last).total_seconds()
