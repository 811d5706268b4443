"""Finds the truth on disk: cards of artifacts, records of runs, reports."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from uni_moe.alone import has_ended
from uni_moe.artifacts import CARD, Layout, read_card, read_json
from uni_moe.errors import LineageError
from uni_moe.records import Card, ContractReport, EvalReport
from uni_moe.runs import HEARTBEAT_S, HEARTBEATS, RECORD, pid_namespace

DEAD_AFTER_S = 2 * HEARTBEAT_S  # a busy machine may write a heartbeat late by as much as one more
GONE_AFTER_S = 10.0  # where its process is known to have ended: what it wrote last is seen by then
CARDS, REPORT, ANSWERS = "cards", "report.json", "answers.jsonl"
KEPT = "store/"  # how a card names a model that tuning began with: an earlier generation made it
BEGINNING = 12  # letters of an id that names of files and keys have
_SECOND = len("20260331T120000")  # what a run's name begins with
_BEATS_BYTES = 4096  # at the end of a file of heartbeats: the last one is among them


Cards = Mapping[str, tuple[str, Card]]
"""Id -> name in the workspace, card."""


def all_cards(layout: Layout) -> dict[str, tuple[str, Card]]:
    """Return id -> (name in the workspace, card), of artifacts here, in the store, or made outside.

    A card's id is computed from its content, so a changed card is another card. An artifact that
    is being replaced at this moment is left out.

    Raises:
        LineageError: a card cannot be read.
    """
    found: dict[str, tuple[str, Card]] = {}
    for folder in sorted(layout.store.glob(f"*/{CARDS}")):
        for file in sorted(folder.rglob("*.json")):
            _note(found, file.relative_to(folder).as_posix().rsplit(".", 2)[0], file)
    for place in artifact_folders(layout.artifacts):
        _note(found, layout.name_of(place), place / CARD)
    return found | run_cards(layout)


def run_cards(layout: Layout) -> dict[str, tuple[str, Card]]:
    """Return the cards that run folders hold: of what was made outside artifacts/, by id.

    Raises:
        LineageError: a card cannot be read.
    """
    found: dict[str, tuple[str, Card]] = {}
    for folder in oldest_first(file.parent for file in layout.runs.glob(f"*/{CARD}")):
        record = json_file(folder / RECORD) or {"artifacts": {}}
        names = {card_id: name for name, card_id in record["artifacts"].items()}
        own: dict[str, tuple[str, Card]] = {}
        _note(own, folder.name, folder / CARD)
        for card_id, (name, card) in own.items():
            found.setdefault(card_id, (names.get(card_id, name), card))
    return found


def oldest_first(folders: Iterable[Path]) -> Iterator[Path]:
    """Give runs as they began: a name begins with the second, and records tell more of it."""
    for _, same in groupby(sorted(folders), key=lambda folder: folder.name[:_SECOND]):
        within = list(same)
        if len(within) > 1:
            within.sort(key=lambda folder: (json_file(folder / RECORD) or {}).get("started", ""))
        yield from within


def ancestors(cards: Mapping[str, tuple[str, Card]], start: str) -> set[str]:
    """Return an artifact and everything it was made from.

    Raises:
        LineageError: a parent's card is nowhere.
    """
    found, waiting = set(), [start]
    while waiting:
        card_id = waiting.pop()
        if card_id in found:
            continue
        if card_id not in cards:
            raise LineageError(
                f"The card {card_id[:12]} is missing, so the lineage has a gap.",
                cause="an artifact was made again after its children were, or a kept card is gone.",
                remedy="run `dvc repro`, then register again; a kept card comes back from a copy.",
            )
        found.add(card_id)
        waiting += cards[card_id][1].parents.values()
    return found


def reachable(cards: Mapping[str, tuple[str, Card]], start: str) -> set[str]:
    """Return an artifact and everything it was made from, as far as cards are known."""
    found, waiting = set(), [start]
    while waiting:
        card_id = waiting.pop()
        if card_id in cards and card_id not in found:
            found.add(card_id)
            waiting += cards[card_id][1].parents.values()
    return found


def generations(cards: Cards, model: str) -> list[Cards]:
    """Return what a model was made from, then each registered model that it goes on from. Pure.

    Each generation ends where the one before it was registered. Cards that are not there are left
    out.
    """
    found: list[Cards] = []
    waiting, seen = [model], set[str]()
    while waiting:
        own: dict[str, tuple[str, Card]] = {}
        here = [waiting.pop(0)]
        while here:
            one = here.pop()
            if one in seen or one in own or one not in cards:
                continue
            own[one] = cards[one]
            for name, parent in cards[one][1].parents.items():
                (waiting if name.startswith(KEPT) else here).append(parent)
        seen |= {one for one, (_, card) in own.items() if card.kind == "model"}
        if own:
            found.append(own)
    return found


def kept_cards(folder: Path) -> dict[str, tuple[str, Card]]:
    """Return the cards that are kept with a registered model: id -> (name then, card).

    Raises:
        LineageError: a card cannot be read, or is not the one that its file is named after.
    """
    cards: dict[str, tuple[str, Card]] = {}
    for file in sorted(folder.rglob("*.json")):
        name = file.relative_to(folder).as_posix().rsplit(".", 2)[0]
        card = _kept_card(file)
        if card is None or folder / card_file(name, card.id) != file:
            raise LineageError(
                f"{file} is not the card that it is named after.",
                cause="it was changed after it had been kept.",
                remedy="bring it back from a copy; cards travel with `uni-moe push` and `pull`.",
            )
        cards[card.id] = (name, card)
    return cards


def kept_family(folder: Path, model: str) -> list[tuple[str, Card]]:
    """Return a registered model's card and its ancestors' with their names then, in their order.

    A folder of kept cards also holds those that reports were made from.

    Args:
        folder: the store's `cards` of this model.
        model: the id of its card.

    Raises:
        LineageError: a card is missing, cannot be read, or is not the one that its file is named
            after.
    """
    cards = kept_cards(folder)
    return sorted((cards[one] for one in ancestors(cards, model)), key=lambda one: one[0])


def _kept_card(file: Path) -> Card | None:
    try:
        return Card.from_json(json_file(file))
    except TypeError:  # other fields, or no object
        return None


def card_file(name: str, card_id: str) -> str:
    """Return where a card lies below the store's `cards`: two reports of one model both stay."""
    return f"{name}.{card_id[:BEGINNING]}.json"


def beginnings(layout: Layout, models: Iterable[str]) -> set[str]:
    """Return how the ids of cards begin that are kept with these models, or lie in the workspace.

    Raises:
        LineageError: a card cannot be read.
    """
    files = (file for one in models for file in (layout.store / one / CARDS).rglob("*.json"))
    here = (read_card(folder).id for folder in artifact_folders(layout.artifacts))
    own = {one[:BEGINNING] for one in (*here, *run_cards(layout))}
    return own | {file.name.rsplit(".", 2)[1] for file in files}


def report_key(report: str) -> str:
    """Return the name that a report has in its model's folder; a model may be judged again."""
    return f"report-{report[:12]}"


def all_reports(layout: Layout) -> Iterator[tuple[str, Path]]:
    """Return the id and the folder of every report that is here or in the store."""
    for folder in (layout.report, *sorted(layout.store.glob(f"*/{report_key('*')}"))):
        card = json_file(folder / CARD)
        if card is not None:
            yield Card.from_json(card).id, folder


def read_report(folder: Path) -> EvalReport:
    """Read a report.

    Raises:
        LineageError: it is absent, broken, or was written by a version that knew other fields.
    """
    data = json_file(folder / REPORT)
    try:
        return EvalReport.from_json(data)
    except (TypeError, KeyError, AttributeError) as error:
        raise LineageError(
            f"{folder / REPORT} is not a report that this version reads.",
            cause=f"it is absent, or its fields are others: {error}.",
            remedy="judge the model again: `uni-moe evaluate`.",
        ) from error


def contract_report(folder: Path) -> ContractReport | None:
    """Read what a contract said; None where it is not there.

    Raises:
        LineageError: it is broken, or was written by a version that knew other fields.
    """
    data = json_file(folder / REPORT)
    try:
        return None if data is None else ContractReport.from_json(data)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise LineageError(
            f"{folder / REPORT} is not a contract's report that this version reads.",
            cause=f"it was changed, or its fields are others: {error!r}.",
            remedy="let the data be judged again: `uni-moe run`.",
        ) from error


def all_runs(layout: Layout, but: Container[str] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """Return the folder and record of every run but those named, oldest first.

    A run without an end that missed two heartbeats has the status `died`, and one whose process is
    known to be gone after less.
    """
    found = []
    for file in layout.runs.glob(f"*/{RECORD}"):
        record = run_record(file.parent) if file.parent.name not in but else None
        if record is not None:
            found.append((file.parent, record))
    return sorted(found, key=lambda run: (run[1]["started"], run[1]["id"]))


def run_record(folder: Path) -> dict[str, Any] | None:
    """Return a run's record with its status of this moment, None where there is none.

    Raises:
        LineageError: the record cannot be read, or lacks what every record says.
    """
    record: dict[str, Any] | None = json_file(folder / RECORD)
    try:
        if record is not None and _told_status(record) == "running" and _is_dead(folder, record):
            record["status"] = "died"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LineageError(
            f"The record of the run {folder.name} cannot be read.",
            cause=f"it was changed by hand, or was written by another version: {error!r}.",
            remedy=f"bring its {RECORD} back from a copy, or move the folder out of runs/.",
        ) from error
    return record


def _told_status(record: Mapping[str, Any]) -> str:
    """Return the status that a record tells, if it tells the rest that every one does."""
    if datetime.fromisoformat(record["started"]).utcoffset() is None:
        raise ValueError(f"the moment {record['started']} tells no time zone")
    _, _, status = (str(record[name]) for name in ("id", "stage", "status"))
    return status


def json_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Return the whole lines of a live file.

    A half-written last line is not there yet. A line that a crash broke is left out.
    """
    if not file.is_file():
        return
    with file.open("rb") as stream:
        for line in stream:
            row = _whole_line(line)
            if row is not None:
                yield row


def _is_dead(folder: Path, record: Mapping[str, Any]) -> bool:
    silent_s = _silent_s(folder, record)
    return silent_s > DEAD_AFTER_S or (silent_s > GONE_AFTER_S and _is_gone(record))


def _is_gone(record: Mapping[str, Any]) -> bool:
    """Say whether a run's process has surely ended: it was one of this machine, or container."""
    ours = pid_namespace()
    if record.get("host") != socket.gethostname() or record.get("pid_namespace", ours) != ours:
        return False
    return "pid" in record and has_ended(int(record["pid"]))


def lines_from(file: Path, start: int, most_bytes: int) -> tuple[list[dict[str, Any]], int]:
    """Return the whole lines of a live file from a byte on, and the byte to go on from.

    So many bytes are read at a time, or one line where it is longer. Lines are left out as by
    `json_lines`.
    """
    with file.open("rb") as stream:
        stream.seek(start)
        data = stream.read(most_bytes)
        if b"\n" not in data:
            data += stream.readline()
    end = data.rfind(b"\n") + 1
    rows = (_whole_line(line + b"\n") for line in data[:end].split(b"\n"))
    return [row for row in rows if row is not None], start + end


def last_lines(file: Path, most_bytes: int) -> list[dict[str, Any]]:
    """Return the whole lines in the last bytes of a live file, none where it is not there.

    Raises:
        LineageError: it is there, and the system does not let it be read.
    """
    with absent_or_read(file):
        return lines_from(file, max(0, file.stat().st_size - most_bytes), most_bytes)[0]
    return []


@contextmanager
def absent_or_read(place: Path) -> Iterator[None]:
    """Let a block that reads a file or a folder end early where that is not there.

    Raises:
        LineageError: it is there, and the system does not let it be read.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise LineageError(
            f"{place} cannot be read: {error.strerror}.",
            cause="it belongs to another user, or the disk is failing.",
            remedy="let this user read it (`ls -l` tells who may), or bring it back from a copy.",
        ) from error


def _whole_line(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _silent_s(folder: Path, record: Mapping[str, Any]) -> float:
    last = datetime.fromisoformat(last_heard(folder, record))
    return (datetime.now(UTC) - last).total_seconds()


def last_heard(folder: Path, record: Mapping[str, Any]) -> str:
    """Return when a run's heart beat last, as far as that is known."""
    beats = last_lines(folder / HEARTBEATS, _BEATS_BYTES)
    return str(beats[-1]["time"] if beats else record["started"])


def artifact_folders(root: Path) -> Iterator[Path]:
    """Return folders with a card, in order; drafts are hidden, and some vanish meanwhile."""
    for place, below, files in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if CARD in files:
            yield Path(place)


def _note(found: dict[str, tuple[str, Card]], name: str, file: Path) -> None:
    data = json_file(file)
    if data is not None:
        card = Card.from_json(data)
        found[card.id] = (name, card)


def json_file(file: Path) -> Any:  # noqa: ANN401 - JSON has any shape
    """Read a file that others replace: None where it is absent at this moment.

    Raises:
        LineageError: it cannot be read.
    """
    try:
        with absent_or_read(file):
            return read_json(file)
    except ValueError as error:
        raise LineageError(
            f"{file} cannot be read: {error}.",
            cause="it was changed by hand, or the disk is failing; we never write half a file.",
            remedy="bring it back from a copy or with `dvc checkout`.",
        ) from error
    return None
