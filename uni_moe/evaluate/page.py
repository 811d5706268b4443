"""The report as one page that opens offline: tables and pictures, no script, no link."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from uni_moe.evaluate.report import FOOTNOTES, HEADINGS, cells, ordered, percent
from uni_moe.html_page import document, picture, table
from uni_moe.records import EvalReport

_HOW = (
    "Answers are generated greedily. An answer is right when it equals the reference but for case, "
    "spaces and closing marks; where there are choices, anything else is unparseable and wrong. "
    "Where the metric is wer, the score is 1 less the word error rate, at least 0.",
    "All media of an item are exchanged together: a spoken question about a picture gets both the "
    "picture and the voice of one other item of its task.",
    "A knock-out keeps one expert of one layer from being chosen. Its cost is counted on reference "
    "answers whose every token is the model's first choice after those before it.",
)
PICTURES = {
    "scores.png": "Scores by modality beside chance, majority, question-only and swapped media",
    "losses.png": "Validation loss before and after each phase",
    "load.png": "Share of visits by expert, layer and modality",
    "knock_out.png": "Points lost when an expert is knocked out, by layer and modality",
}


def page(report: EvalReport, pictures: Sequence[Path], confidence: float) -> str:
    """Return the page. Every text from data is escaped."""
    losses = [
        (phase, modality, f"{values['before']:.3f}", f"{values['after']:.3f}")
        for phase, by_modality in report.losses.items()
        for modality, values in by_modality.items()
    ]
    tasks = [cells(name, score) for name, score in report.tasks.items()]
    parts = [
        "<h1>Judgement of a model</h1>",
        f"<p>Model <code>{escape(report.model)}</code></p>",
        f"<p>Mean over modalities {percent(report.mean)}, bias (largest less smallest score) "
        f"{percent(report.bias)}. Intervals hold with {100 * confidence:g} % confidence.</p>",
        "<h2>Is each modality learned, and are its media used?</h2>",
        table(HEADINGS, (cells(m, report.modalities[m]) for m in ordered(report.modalities))),
        "<p>A modality is learned when its score stands far above chance, majority and the best "
        "guess from the question alone. Its media are used when the score falls towards chance as "
        "soon as they are exchanged among the items.</p>",
        *(f"<p>{escape(line)}</p>" for line in FOOTNOTES),
        *(picture(file, PICTURES[file.name]) for file in pictures),
        *(f"<p>{escape(line)}</p>" for line in _HOW),
        "<h2>By task, and by the group of its items</h2>",
        table(("task", *HEADINGS[1:]), tasks),
        "<h2>Validation loss, nats per token</h2>",
        table(("phase", "modality", "before", "after"), losses),
        "<h2>Experts</h2>",
        table(("slot", "expert"), ((str(i), slot) for i, slot in enumerate(report.slots))),
    ]
    return document("Judgement", parts)
