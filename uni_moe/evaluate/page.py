"""The report as one page that opens offline: tables and pictures, no script, no link."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from uni_moe.evaluate.report import FOOTNOTES, HEADINGS, cells, ordered, percent
from uni_moe.records import EvalReport

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; background: white; padding: .5rem; border-radius: .4rem; margin: .5rem 0; }
code { overflow-wrap: anywhere; }
"""
_HOW = (
    "Answers are generated greedily. An answer is right when it equals the reference but for case, "
    "spaces and closing marks; where there are choices, anything else is unparseable and wrong. "
    "Where the metric is wer, the score is 1 less the word error rate, at least 0.",
    "All media of an item are exchanged together: a spoken question about a picture gets both the "
    "picture and the voice of one other item of its task.",
    "A knock-out keeps one expert of one layer from being chosen. Its cost is counted on reference "
    "answers whose every token is the model's first choice after those before it.",
)
_ALT = {
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
        _table(HEADINGS, (cells(m, report.modalities[m]) for m in ordered(report.modalities))),
        "<p>A modality is learned when its score stands far above chance, majority and the best "
        "guess from the question alone. Its media are used when the score falls towards chance as "
        "soon as they are exchanged among the items.</p>",
        *(f"<p>{escape(line)}</p>" for line in FOOTNOTES),
        *(_picture(file) for file in pictures),
        *(f"<p>{escape(line)}</p>" for line in _HOW),
        "<h2>By task, and by the group of its items</h2>",
        _table(("task", *HEADINGS[1:]), tasks),
        "<h2>Validation loss, nats per token</h2>",
        _table(("phase", "modality", "before", "after"), losses),
        "<h2>Experts</h2>",
        _table(("slot", "expert"), ((str(i), slot) for i, slot in enumerate(report.slots))),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">"
        f"<title>Judgement</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(texts: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    head_line = line(head, "th")
    return f'<div class="wide"><table><thead>{head_line}</thead><tbody>{body}</tbody></table></div>'


def _picture(file: Path) -> str:
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    return f'<img alt="{escape(_ALT[file.name])}" src="data:image/png;base64,{data}">'
