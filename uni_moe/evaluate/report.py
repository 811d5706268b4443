"""The judgement as text. No torch here: the command prints it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from uni_moe.records import MODALITIES, EvalReport, Score

HEADINGS = (
    "modality",
    "n",
    "score (interval)",
    "chance",
    "majority",
    "question-only",
    "media-swapped",
    "media used",
)
FOOTNOTES = (
    "question-only: the best guess from the question alone. "
    "media-swapped: each item with another item's media.",
    "media used: yes where the swapped score lies below the interval of the score.",
)


def score_table(report: EvalReport) -> str:
    """Return a table: what each modality scores, beside what guessing and foreign media reach.

    Intervals are those of the report (`evaluate.confidence`).
    """
    rows = [HEADINGS, *(cells(name, report.modalities[name]) for name in ordered(report.items))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    mean = f"mean {percent(report.mean)}, bias (largest less smallest score) {percent(report.bias)}"
    return "\n".join((*lines, "", mean, *FOOTNOTES))


def cells(name: str, score: Score) -> tuple[str, ...]:
    """Return one row of the table."""
    return (
        name,
        str(score.n),
        f"{percent(score.score)} ({100 * score.low:.1f} to {100 * score.high:.1f})",
        percent(score.chance),
        percent(score.majority),
        percent(score.question_only),
        percent(score.swapped),
        media_used(score),
    )


def media_used(score: Score) -> str:
    """Say whether foreign media cost more than the score's uncertainty."""
    if score.swapped is None:
        return "-"
    return "yes" if score.swapped < score.low else "not shown"


def percent(share: float | None) -> str:
    """Return a share as people read it."""
    return "-" if share is None else f"{100 * share:.1f} %"


def ordered(names: Mapping[str, object]) -> list[str]:
    """Return modalities in the order of records.MODALITIES; JSON keeps none."""
    return sorted(names, key=lambda name: (*MODALITIES, name).index(name))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
    return "  ".join([row[0].ljust(widths[0]), *padded[1:]]).rstrip()
