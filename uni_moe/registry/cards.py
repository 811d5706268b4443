"""Finds the truth on disk: cards of artifacts and records of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from uni_moe.artifacts import CARD, Layout, read_json
from uni_moe.records import Card

DEAD_AFTER_S = 30.0
CARDS = "cards"


def all_cards(layout: Layout) -> dict[str, tuple[str, Card]]:
    """Return id -> (name in the workspace, card), of artifacts that are here or in the store.

    A card's id is computed from its content, so a changed card is another card.
    """
    found: dict[str, tuple[str, Card]] = {}
    for folder in sorted(layout.store.glob(f"*/{CARDS}")):
        for file in sorted(folder.rglob("*.json")):
            _note(found, file.relative_to(folder).as_posix().rsplit(".", 2)[0], file)
    for file in sorted(layout.artifacts.glob(f"**/{CARD}")):
        name = file.parent.relative_to(layout.root)
        if not any(part.startswith(".") for part in name.parts):  # an artifact being written
            _note(found, name.as_posix(), file)
    return found


def card_file(name: str, card_id: str) -> str:
    """Return where a card lies below the store's `cards`: two reports of one model both stay."""
    return f"{name}.{card_id[:12]}.json"


def all_runs(layout: Layout) -> list[tuple[Path, dict[str, Any]]]:
    """Return every run's folder and record, oldest first.

    A run whose heart stopped more than 30 s ago without an end has the status `died`.
    """
    found = []
    for file in layout.runs.glob("*/run.json"):
        record = read_json(file)
        if record["status"] == "running" and _silent_s(file.parent, record) > DEAD_AFTER_S:
            record["status"] = "died"
        found.append((file.parent, record))
    return sorted(found, key=lambda run: (run[1]["started"], run[1]["id"]))


def json_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Return the whole lines of a live file; a half-written line is not there yet."""
    if not file.is_file():
        return
    with file.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _silent_s(folder: Path, record: Mapping[str, Any]) -> float:
    last = record["started"]
    for beat in json_lines(folder / "heartbeat.jsonl"):
        last = beat["time"]
    return (datetime.now(UTC) - datetime.fromisoformat(last)).total_seconds()


def _note(found: dict[str, tuple[str, Card]], name: str, file: Path) -> None:
    with suppress(FileNotFoundError):  # its artifact is being replaced at this moment
        card = Card.from_json(read_json(file))
        found[card.id] = (name, card)
