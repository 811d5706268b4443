"""The report as one page that opens offline: tables and pictures, no script, no link."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from uni_moe.evaluate.report import HEADINGS, percent
from uni_moe.records import EvalReport, Score

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; background: white; padding: .5rem; border-radius: .4rem; margin: .5rem 0; }
code { overflow-wrap: anywhere; }
"""
_ALT = {
    "scores.png": "Scores by modality beside chance, majority, question-only and swapped media",
    "losses.png": "Validation loss before and after each phase",
    "load.png": "Share of visits by expert, layer and modality",
    "knock_out.png": "Points lost when an expert is knocked out, by layer and modality",
}


def page(report: EvalReport, pictures: Sequence[Path]) -> str:
    """Return the page. Every text from data is escaped."""
    losses = [
        (phase, modality, f"{values['before']:.3f}", f"{values['after']:.3f}")
        for phase, by_modality in report.losses.items()
        for modality, values in by_modality.items()
    ]
    parts = [
        "<h1>Judgement of a model</h1>",
        f"<p>Model <code>{escape(report.model)}</code></p>",
        f"<p>Mean over modalities {percent(report.mean)}, bias (largest less smallest) "
        f"{percent(report.bias)}.</p>",
        "<h2>By modality</h2>",
        _table(HEADINGS, (_row(name, score) for name, score in report.modalities.items())),
        "<p>A modality is learned when its score stands far above chance, majority and the best "
        "guess from the question alone. Its media are used when the score falls to chance as soon "
        "as they are exchanged among the items.</p>",
        *(_picture(file) for file in pictures),
        "<h2>By task</h2>",
        _table(("task", *HEADINGS[1:]), (_row(name, s) for name, s in report.tasks.items())),
        "<h2>Validation loss, nats per token</h2>",
        _table(("phase", "modality", "before", "after"), losses),
        "<h2>Experts</h2>",
        _table(("slot", "expert"), ((str(i), slot) for i, slot in enumerate(report.slots))),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
        "style-src 'unsafe-inline'; img-src data:\">"
        f"<title>Judgement</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def _row(name: str, score: Score) -> tuple[str, ...]:
    return (
        name,
        str(score.n),
        percent(score.score),
        f"{percent(score.low)} to {percent(score.high)}",
        percent(score.chance),
        percent(score.majority),
        percent(score.question_only),
        percent(score.swapped),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"


def _picture(file: Path) -> str:
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    return f'<img alt="{escape(_ALT[file.name])}" src="data:image/png;base64,{data}">'
