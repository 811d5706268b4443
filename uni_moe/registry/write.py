"""Registers models: the store and run folders first, then the index that follows from them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from uni_moe.artifacts import CARD, Layout, verified_card, write_json
from uni_moe.audit import Asked, Telling
from uni_moe.audit_log import REGISTRATION, sound_log
from uni_moe.errors import LineageError
from uni_moe.records import Card
from uni_moe.registry import read
from uni_moe.registry.cards import (
    CARDS,
    all_cards,
    ancestors,
    card_file,
    generations,
    read_report,
    report_key,
)
from uni_moe.registry.decisions import decide_in_writing, judged, turn
from uni_moe.registry.exams import kept_exam
from uni_moe.registry.indexing import index
from uni_moe.registry.seen import keep_seen, verdicts_on
from uni_moe.runs import start_run
from uni_moe.storage.blobs import LocalFolder


@dataclass(frozen=True)
class Candidate:
    """A registered model: its version and the ids of its card and its report's."""

    number: int
    model: str
    report: str


def register(layout: Layout, *, reason: str, who: str, flow_run: str | None = None) -> Candidate:
    """Keep the candidate in artifacts/ for good, with its report and the cards of its ancestors.

    Registering the same model and report again returns the same version.

    Raises:
        LineageError: an artifact is not what its card says, or the report judges another model.
    """
    model, report = verified_card(layout.model), verified_card(layout.report)
    if report.parents.get(layout.name_of(layout.model)) != model.id:
        raise LineageError(
            "The report in artifacts/report judges another model than the one in artifacts/model.",
            cause="the model was trained again after it had been judged.",
            remedy="run `dvc repro evaluate`, then register again.",
        )
    if read_report(layout.report).model != model.id:
        raise LineageError(
            "artifacts/report/report.json names another model than its card.",
            cause="the stage that wrote it mixed up its inputs: this is our bug.",
            remedy="run `dvc repro --force evaluate`; tell us if it stays so.",
        )
    asked = Asked(who, reason, flow_run)
    return _registered(layout, (layout.model, model), (layout.report, report), asked)


def register_judgement(layout: Layout, model: str, folder: Path, *, who: str) -> Candidate:
    """Keep a new judgement of a registered model; its version stays.

    Raises:
        LineageError: the model is not registered, or the report judges another one.
    """
    report = verified_card(folder)
    known = read.version_of(layout, model)
    if known is None or read_report(folder).model != model:
        raise LineageError(
            f"{folder} is no judgement of a registered model.",
            cause=f"it names {read_report(folder).model[:12]}, {model[:12]} was asked for.",
            remedy="judge a version that `uni-moe models` lists.",
        )
    card = verified_card(known.model_folder)
    asked = Asked(who, "judged again", os.environ.get("UNI_MOE_FLOW_RUN"))
    done = _registered(layout, (known.model_folder, card), (folder, report), asked)
    shutil.rmtree(folder)
    return done


def must_judge_again(layout: Layout, candidate: Candidate) -> bool:
    """Say whether the champion's report cannot be compared with the candidate's."""
    with turn(layout):
        current = read.champion(layout)
    if current is None or current.model == candidate.model:
        return False
    ours, theirs = (
        kept_exam(layout, *pair)
        for pair in ((candidate.model, candidate.report), (current.model, current.report))
    )
    return ours.report.items != theirs.report.items or ours.how != theirs.how


def _registered(
    layout: Layout, model: tuple[Path, Card], report: tuple[Path, Card], asked: Asked
) -> Candidate:
    """Keep a model and its report, once; return its version."""
    ids = model[1].id, report[1].id
    read_from = {layout.name_of(folder): card.id for folder, card in (model, report)}
    with turn(layout):
        known = read.version_of(layout, ids[0])
        is_kept = LocalFolder(layout.store).has(f"{ids[0]}/model")
        if known is None or known.report != ids[1] or not is_kept:
            sound_log(layout)
            number = known.number if known is not None else read.next_number(layout)
            _keep(layout, model, report)
            event = "judgement" if known is not None and is_kept else "registration"
            _record(layout, Candidate(number, *ids), read_from, asked, event)
            index(layout)
            return Candidate(number, *ids)
    return Candidate(known.number, *ids)


def _keep(layout: Layout, model: tuple[Path, Card], report: tuple[Path, Card]) -> None:
    store, cards = LocalFolder(layout.store), all_cards(layout)
    cards[report[1].id] = (layout.name_of(layout.report), report[1])
    own = model[1].id
    family = ancestors(cards, own) | ancestors(cards, report[1].id)
    for start in (own, report[1].id):
        for generation in generations(cards, start):
            family |= verdicts_on(cards, generation)
    for key, (folder, card) in (("model", model), (report_key(report[1].id), report)):
        if folder != layout.store / own / key:
            store.put_folder(f"{own}/{key}", folder, _sums(folder, card))
    keep_seen(layout, cards, family)
    for card_id in family:
        name, card = cards[card_id]
        write_json(layout.store / own / CARDS / card_file(name, card_id), card.to_json())


def _record(
    layout: Layout, candidate: Candidate, read_from: Mapping[str, str], asked: Asked, event: str
) -> None:
    told = {"reason": asked.why, "flow_run": asked.flow_run}
    with start_run(layout, "register", {}, **told) as run:
        for name, card_id in read_from.items():
            run.read(name, card_id)
        facts = {
            **asdict(candidate),
            "who": asked.who,
            "reason": asked.why,
            "at": run.record["started"],
            "sequence": read.next_sequence(layout),
        }
        evidence = {"artifacts": judged(layout, candidate.model, candidate.report)}
        telling = Telling(event, asked.who, asked.why, candidate.model, evidence)
        decide_in_writing(layout, layout.name_of(run.folder / REGISTRATION), facts, telling)


def _sums(folder: Path, card: Card) -> dict[str, str]:
    """Return what must arrive in the store: the files that a card names, and the card.

    Raises:
        LineageError: another artifact lies there by now.
    """
    text = (folder / CARD).read_bytes()
    if Card.from_json(json.loads(text)).id != card.id:
        raise LineageError(
            f"{folder} was replaced while it was being registered.",
            cause="a training ended at this moment.",
            remedy="register again when no stage runs.",
        )
    return {**card.files, CARD: hashlib.sha256(text).hexdigest()}
