"""What an example keeps of models and decisions: the store, run folders' facts, the audit log."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from uni_moe.artifacts import CARD, Layout, json_text, sha256_bytes
from uni_moe.audit import BEGINNING, FORGOTTEN, Entry, Telling, sealed
from uni_moe.audit_log import REGISTRATION, VERDICT, continue_log
from uni_moe.registry.cards import CARDS, ancestors, card_file, report_key
from uni_moe.registry.decisions import judged
from uni_moe.registry.example.exams import texts
from uni_moe.registry.example.history import (
    NOTE,
    NOTE_FILE,
    Decided,
    History,
    Registered,
    Told,
    verdict_text,
)
from uni_moe.registry.removals import FORGETTING
from uni_moe.registry.seen import SEEN, verdicts_on
from uni_moe.storage.blobs import LocalFolder

KEPT = 20  # versions, the last ones; champions stay beside them
_CHAMPIONS = 2
_WHO, _WHY = "scheduler", "older than the versions that are kept"


def kept(history: History) -> list[Registered]:
    """Return the versions whose folders stay in the store."""
    last = {one.version: one for one in history.versions[-KEPT:]}
    last |= {one.version: one for one in history.reigns[-_CHAMPIONS:]}
    return [last[number] for number in sorted(last)]


def write_store(layout: Layout, history: History, versions: Sequence[Registered]) -> None:
    """Keep versions with their reports and the cards of all that they were made from."""
    for one in versions:
        own = {NOTE_FILE: NOTE, CARD: _card_text(history, one.model)}
        _put(layout, f"{one.model}/model", own)
        report = {**texts(one.sitting), CARD: _card_text(history, one.report)}
        _put(layout, f"{one.model}/{report_key(one.report)}", report)
        family = ancestors(history.cards, one.model) | {one.report}
        verdicts = verdicts_on(history.cards, family)
        for id_ in verdicts:
            text = verdict_text(history.cards[id_][1].results["made"])
            _put(layout, f"{SEEN}/{id_}", {"report.json": text})
        for id_ in family | verdicts:
            name = history.cards[id_][0]
            file = layout.store / one.model / CARDS / card_file(name, id_)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_card_text(history, id_), encoding="utf-8")


def _card_text(history: History, id_: str) -> str:
    return json_text(history.cards[id_][1].to_json())


def _put(layout: Layout, key: str, files: Mapping[str, str]) -> None:
    """Keep files under a key, as a registration does."""
    layout.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.state) as draft:
        for name, text in files.items():
            (Path(draft) / name).write_text(text, encoding="utf-8")
        LocalFolder(layout.store).put_folder(key, Path(draft))


def write_decisions(layout: Layout, history: History, until: datetime) -> None:
    """Write what runs decided into their folders and into the log, with what was let go since."""
    entries: list[Entry] = []
    for run in history.runs:
        if run.decision is not None:
            name, facts = facts_of(run)
            text = json_text(facts)
            (layout.runs / run.id / name).write_text(text, encoding="utf-8")
            path = layout.name_of(layout.runs / run.id / name)
            evidence = {"decision": facts, "files": {path: sha256_bytes(text.encode())}}
            entries.append(_entry(_telling(layout, run, evidence), run.started, entries))
    stays = {one.version for one in kept(history)}
    for one in history.versions:
        if one.version not in stays:
            gone = {FORGOTTEN: layout.name_of(layout.store / one.model)}
            telling = Telling(FORGETTING, _WHO, _WHY, one.model, gone)
            entries.append(_entry(telling, until.isoformat(), entries))
    continue_log(layout, b"".join(entry.line for entry in entries))


def facts_of(run: Told) -> tuple[str, dict[str, Any]]:
    """Return the file of a decision, and what it says."""
    decision = run.decision
    if isinstance(decision, Registered):
        told = {"number": decision.version, "model": decision.model, "report": decision.report}
        about = {"who": run.user, "reason": run.reason, "at": run.started}
        return REGISTRATION, {**told, **about, "sequence": decision.sequence}
    assert isinstance(decision, Decided), "only these two are decisions"
    reports = {name: getattr(decision, name) for name in ("candidate_report", "champion_report")}
    place = {"sequence": decision.sequence, "at": run.started}
    return VERDICT, {**decision.verdict.to_json(), **reports, **place}


def _telling(layout: Layout, run: Told, evidence: dict[str, Any]) -> Telling:
    decision = run.decision
    if isinstance(decision, Registered):
        artifacts = judged(layout, decision.model, decision.report)
        told = {**evidence, "artifacts": artifacts}
        return Telling("registration", run.user, run.reason, decision.model, told)
    assert isinstance(decision, Decided), "only these two are decisions"
    verdict = decision.verdict
    artifacts = judged(layout, verdict.candidate, decision.candidate_report)
    if verdict.champion is not None and decision.champion_report is not None:
        artifacts |= judged(layout, verdict.champion, decision.champion_report)
    told = {**evidence, "artifacts": artifacts}
    return Telling(decision.event, run.user, run.reason, verdict.candidate, told)


def _entry(telling: Telling, at: str, before: Sequence[Entry]) -> Entry:
    previous = before[-1].hash if before else BEGINNING
    return sealed(telling, sequence=len(before) + 1, previous=previous, at=at, behind_s=None)
