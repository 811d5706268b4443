"""A model's passport: where it comes from, what it learned from, how it was judged, what it is not.

One page for those who use the model and those who answer for it; it opens offline. The same store
and audit log give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from uni_moe.artifacts import Layout, read_json, verified_card
from uni_moe.audit import Entry
from uni_moe.audit_log import sound_log
from uni_moe.errors import LineageError
from uni_moe.evaluate.page import PICTURES
from uni_moe.evaluate.report import FOOTNOTES, HEADINGS, cells, ordered, percent
from uni_moe.html_page import document, picture, table
from uni_moe.records import Card, EvalReport
from uni_moe.registry import read
from uni_moe.registry.cards import CARDS, kept_family, read_report

_LIMITS = (
    "Scores are about the test items of this report and say nothing of other media, other "
    "languages or other questions.",
    "Intervals treat items as independent; several questions about one picture are more alike.",
    "Licenses are those that the sources claim; nobody has checked them here.",
    "What the frozen encoders and a pretrained language model had seen before is not known here; "
    "lineage begins with their files.",
    "A generated answer may be wrong with every appearance of certainty.",
)


def passport(layout: Layout, name: str | None = None) -> str:
    """Return the page about a registered model; None takes the champion.

    Raises:
        LineageError: no model or several have this name, or what is kept of it was changed, or the
            audit log is broken.
    """
    version = read.find(layout, name)
    model = _registered(version.model_folder, version.model)
    _registered(version.report_folder, version.report)
    report = read_report(version.report_folder)
    cards = kept_family(version.folder / CARDS, version.model)
    tree = read.lineage(layout, version.model)
    entries = [one for one in sound_log(layout).entries if one.subject == version.model]
    return document(
        f"Passport of model {version.number}",
        [
            f"<h1>Passport of model {version.number}</h1>",
            *_identity(version, model),
            *_judgement(layout, version, report),
            *_data(cards),
            *_experts(version, report),
            *_decisions(entries),
            "<h2>Lineage</h2>",
            "<p>Each artifact with the beginning of its id, under the one that was made of it.</p>",
            f'<div class="wide"><pre>{escape(read.lineage_text(tree))}</pre></div>',
            "<h2>Settings of the last training</h2>",
            table(("setting", "value"), _flat(model.params)),
            "<h2>Limits</h2>",
            "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in _limits(report)) + "</ul>",
        ],
    )


def _registered(folder: Path, card_id: str) -> Card:
    """Return the card of what is kept in a folder, which must be what was registered."""
    card = verified_card(folder)
    if card.id != card_id:
        raise LineageError(
            f"{folder} holds another artifact than the one registered.",
            cause="the store was changed by hand.",
            remedy="bring it back from a copy.",
        )
    return card


def _identity(version: read.Version, model: Card) -> Iterator[str]:
    standing = "champion" if version.is_champion else version.verdict
    yield table(
        ("what", "value"),
        [
            ("model", version.model),
            ("report", version.report),
            ("standing", standing),
            ("registered", f"{version.at} by {version.who}"),
            ("why", version.reason),
            ("code", model.code),
            ("files", str(len(model.files))),
        ],
    )


def _judgement(layout: Layout, version: read.Version, report: EvalReport) -> Iterator[str]:
    yield "<h2>Scores</h2>"
    yield table(HEADINGS, (cells(m, report.modalities[m]) for m in ordered(report.modalities)))
    yield (
        f"<p>Mean over modalities {percent(report.mean)}, bias (largest less smallest score) "
        f"{percent(report.bias)}.</p>"
    )
    yield from (f"<p>{escape(line)}</p>" for line in FOOTNOTES)
    yield table(("task", *HEADINGS[1:]), (cells(n, score) for n, score in report.tasks.items()))
    for name, alt in PICTURES.items():
        file = version.report_folder / name
        if file.is_file():
            yield picture(file, alt)
    yield "<h2>Verdicts</h2>"
    yield table(("when", "promoted", "why"), _verdicts(layout, version.model))


def _verdicts(layout: Layout, model: str) -> Iterator[tuple[str, str, str]]:
    """Return the verdicts about a model, a row for each reason."""
    for one in read.verdicts(layout):
        if one.verdict.candidate == model:
            head = (one.at, "yes" if one.verdict.promoted else "no")
            for place, reason in enumerate(one.verdict.reasons):
                yield *(head if place == 0 else ("", "")), reason


def _data(cards: Sequence[tuple[str, Card]]) -> Iterator[str]:
    """Tell of samples with their licenses, and of contracts with what they refused."""
    yield "<h2>Data</h2>"
    samples = [(name, card) for name, card in cards if card.kind == "samples"]
    yield table(
        ("samples", "id", "listed", "taken out", "sources", "licenses"),
        (
            (
                name,
                card.id[:12],
                str(card.results.get("listed", "-")),
                str(card.results.get("taken_out", "-")),
                _counts(card.results.get("sources")),
                _counts(card.results.get("licenses")),
            )
            for name, card in samples
        ),
    )
    yield "<h2>Contracts</h2>"
    held = [(name, card) for name, card in cards if card.stage == "validate"]
    yield table(
        ("held to it", "id", "contract", "listed", "accepted", "quarantined"),
        (
            (
                name,
                card.id[:12],
                "; ".join(f"{key} {value}" for key, value in _flat(card.params)),
                *(str(card.results.get(key, "-")) for key in _VALIDATED),
            )
            for name, card in held
        ),
    )


_VALIDATED = ("listed", "accepted", "quarantined")


def _experts(version: read.Version, report: EvalReport) -> Iterator[str]:
    """Tell which expert sits in which slot, and who visits it."""
    yield "<h2>Expert map</h2>"
    file = version.model_folder / "receipt.json"
    slots = read_json(file)["slots"] if file.is_file() else list(report.slots)
    yield table(("slot", "expert"), ((str(i), str(name)) for i, name in enumerate(slots)))
    for what, shares in (("share of visits", report.load), ("cost of absence", report.knock_out)):
        rows = [
            (modality, layer, *(percent(share) for share in by_slot))
            for modality, layers in shares.items()
            for layer, by_slot in layers.items()
        ]
        if rows:
            yield f"<h3>{escape(what.capitalize())}</h3>"
            yield table(("modality", "layer", *map(str, slots)), rows)


def _decisions(entries: Sequence[Entry]) -> Iterator[str]:
    yield "<h2>Who decided what</h2>"
    rows = [(str(e.sequence), e.at, e.event, e.who, e.why, e.hash[:12]) for e in entries]
    yield table(("entry", "when", "what", "who", "why", "hash"), rows)


def _limits(report: EvalReport) -> Iterator[str]:
    """Return what the model is not; what its own report shows comes first."""
    for name in ordered(report.modalities):
        score = report.modalities[name]
        if score.swapped is not None and not score.swapped < score.low:
            yield f"{name}: it is not shown that the model uses the media at all."
        if max(score.chance, score.majority, score.question_only) >= score.low:
            yield f"{name}: it is not shown that the model does better than guessing."
    yield from _LIMITS


def _counts(counts: Any) -> str:  # noqa: ANN401 - what a card's results hold
    if not counts:
        return "-"
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:  # noqa: ANN401 - JSON
    """Return nested settings as dotted names with their values."""
    if not isinstance(value, dict):
        return [(path, str(value))]
    inner = ((f"{path}.{key}" if path else str(key), item) for key, item in value.items())
    return [row for name, item in inner for row in _flat(item, name)]
