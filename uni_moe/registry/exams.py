"""A registered model's exam: its kept report and what each item scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uni_moe.artifacts import Layout, read_card, verified_card
from uni_moe.errors import LineageError
from uni_moe.records import Card
from uni_moe.registry import read
from uni_moe.registry.cards import ANSWERS, json_lines, read_report, report_key
from uni_moe.registry.gate import Exam


def kept_exam(layout: Layout, model: str, report: str) -> Exam:
    """Read a registered model's exam from the store, every byte checked.

    Raises:
        LineageError: the model is not registered, or its report is another one or not whole.
    """
    version = read.version_of(layout, model)
    if version is None:
        raise LineageError(
            f"The model {model[:12]} is not registered.",
            cause="no run folder holds its registration.",
            remedy="register it first; `uni-moe models` shows what is registered.",
        )
    folder = version.folder / report_key(report)
    if verified_card(folder).id != report:
        raise LineageError(
            f"{folder} holds another report than the one registered.",
            cause="the store was changed by hand.",
            remedy="remove the folder and register the model again.",
        )
    return read_exam(folder)


def read_exam(folder: Path) -> Exam:
    """Read a report with its items' scores, in the order of the items' ids.

    Raises:
        LineageError: the report cannot be read, or its answers are not those that it counts.
    """
    report = read_report(folder)
    rows: dict[str, list[tuple[str, str, float]]] = {name: [] for name in report.modalities}
    for row in json_lines(folder / ANSWERS):
        rows[row["modality"]].append((row["id"], row["key"], row["score"]))
    short = [name for name, score in report.modalities.items() if len(rows[name]) != score.n]
    if short:
        raise LineageError(
            f"{folder / ANSWERS} lacks answers of: {', '.join(short)}.",
            cause="the report was made by a version that kept none, or it was cut.",
            remedy="judge the model again: `uni-moe judge`.",
        )
    scores = {name: [score for *_, score in sorted(found)] for name, found in rows.items()}
    return Exam(report, scores, _how(read_card(folder)))


def _how(card: Card) -> dict[str, Any]:
    """Return how a report was made, as far as it decides about scores."""
    plan = card.params.get("evaluate", {})
    return {
        "the rules of the same answer": card.params.get("metrics"),
        "evaluate.max_new_tokens": plan.get("max_new_tokens"),
    }
