"""What the entries of the audit log name on disk, held against what is there."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from uni_moe.artifacts import Layout, read_json, sha256_file, verified_card
from uni_moe.audit import FORGOTTEN, Checked, Entry, Problem
from uni_moe.audit_log import decisions, read_log
from uni_moe.errors import LineageError
from uni_moe.runs import RECORD

_OUT_OF_TURN = ("verification", "arrival", "removal", "recovery")  # told beside who decides


def audited(
    layout: Layout, head: str | None = None, *, has_remote: bool = False, subject: str | None = None
) -> Checked:
    """Check a workspace's log, every file and artifact that it names, and that it names them all.

    Every byte of every registered model is read; with a `subject` only of what the entries about
    this model name. Where there is a remote, a model that was never fetched is a note; so is the
    last decision, as long as its process has not come to write it.
    """
    checked = read_log(layout, head)
    away = _away(layout, checked.entries) if has_remote else {}
    late = unwritten(layout, checked.entries)
    about = [one for one in checked.entries if subject is None or one.subject == subject]
    changed = _changed(layout, [_without(entry, {*away, *late}) for entry in about])
    problems = [*checked.problems, *changed]
    if not checked.problems:
        problems += _untold(layout, checked.entries)
    ordered = sorted(problems, key=lambda problem: problem.sequence)
    notes = [
        f"{path} is not here; `uni-moe pull {name[:12]}` brings it" for path, name in away.items()
    ]
    notes += [
        f"entry {sequence}: {path} is not written yet; what decides next writes it"
        for path, sequence in late.items()
    ]
    return Checked(checked.entries, tuple(ordered), (*checked.notes, *notes))


def unwritten(layout: Layout, entries: Sequence[Entry]) -> dict[str, int]:
    """Return the path of the last decision, where its process died, or is, before writing it.

    Its run then has not ended well, and nobody has taken his turn since, who would have written it:
    a file that was removed later is none of these.

    Returns:
        the path -> the number of the entry that tells of it.
    """
    after = takewhile(lambda entry: "decision" not in entry.evidence, reversed(entries))
    since = list(after)
    if len(since) == len(entries) or any(entry.event not in _OUT_OF_TURN for entry in since):
        return {}
    told = entries[-1 - len(since)]
    records = {path: (layout.root / path).parent / RECORD for path in _named(told, "files")}
    return {
        path: told.sequence
        for path, record in records.items()
        if record.is_file()
        and read_json(record).get("status") != "done"
        and not (layout.root / path).exists()
    }


def _away(layout: Layout, entries: Sequence[Entry]) -> dict[str, str]:
    """Return path -> id of the models that are not here, sums and all, as a pull leaves them.

    Those that were forgotten are no such models.
    """
    forgotten = {entry.evidence.get(FORGOTTEN) for entry in entries}
    named = {path: card for entry in entries for path, card in _named(entry, "artifacts").items()}
    return {
        path: card
        for path, card in named.items()
        if path == f"{layout.name_of(layout.store)}/{card}/model"
        and not forgotten & {path, path.removesuffix("/model")}
        and not (layout.root / path).exists()
        and not (layout.root / f"{path}.sha256").exists()
    }


def _without(entry: Entry, away: Container[str]) -> Entry:
    """Return an entry that names no artifact and no file that is away."""
    here = {
        key: {path: told for path, told in _named(entry, key).items() if path not in away}
        for key in ("artifacts", "files")
    }
    return replace(entry, evidence={**entry.evidence, **here})


def _changed(layout: Layout, entries: Sequence[Entry]) -> list[Problem]:
    """Return the entries that name a file or an artifact that is gone or another one now.

    What a later entry tells to be forgotten is gone in order.
    """
    forgotten = {
        f"{place}/": entry.sequence
        for entry in entries
        if isinstance(place := entry.evidence.get(FORGOTTEN), str)
    }
    found: list[Problem] = []
    known: dict[str, str | None] = {}
    for entry in entries:
        for path, sha256 in _named(entry, "files").items():
            file = layout.root / path
            now = sha256_file(file) if file.is_file() else None
            if now != sha256:
                what = "is gone" if now is None else "holds other bytes than it tells of"
                found.append(Problem(entry.sequence, f"{path} {what}"))
        for path, card in _named(entry, "artifacts").items():
            if path not in known:
                known[path] = _card_id(layout.root / path)
            if known[path] != card and not _is_forgotten(layout, path, entry, forgotten):
                found.append(Problem(entry.sequence, f"{path} is not the artifact it tells of"))
    return found


def _is_forgotten(layout: Layout, path: str, entry: Entry, forgotten: Mapping[str, int]) -> bool:
    """Say whether what an entry names is gone, as a later one tells of the folder it lay in."""
    return not (layout.root / path).exists() and any(
        f"{path}/".startswith(place) and entry.sequence < sequence
        for place, sequence in forgotten.items()
    )


def _untold(layout: Layout, entries: Sequence[Entry]) -> list[Problem]:
    """Return decisions in run folders that no entry names."""
    there = decisions(layout)
    told = {path for entry in entries for path in _named(entry, "files")}
    missing = [path for path in there if path not in told]
    if missing:  # one may have fallen meanwhile
        told = {path for entry in read_log(layout).entries for path in _named(entry, "files")}
        missing = [path for path in missing if path not in told]
    return [Problem(len(entries) + 1, f"no entry tells of {path}") for path in missing]


def _named(entry: Entry, key: str) -> Mapping[str, str]:
    named = entry.evidence.get(key)
    return named if isinstance(named, dict) else {}


def _card_id(folder: Path) -> str | None:
    """Return the id of a whole artifact, None where it is none."""
    try:
        return verified_card(folder).id
    except LineageError:
        return None
