"""The judgement as text. No torch here: the command prints it at once."""

from __future__ import annotations

from uni_moe.records import EvalReport, Score

HEADINGS = ("modality", "n", "score", "95 % interval", "chance", "majority", "question", "swapped")


def score_table(report: EvalReport) -> str:
    """Return a table: what each modality scores, beside what guessing and foreign media reach."""
    rows = [HEADINGS, *(_row(name, score) for name, score in report.modalities.items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines.append(f"\nmean {percent(report.mean)}, bias (largest - smallest) {percent(report.bias)}")
    lines.append("question: the best guess from the question alone; swapped: with media exchanged.")
    return "\n".join(lines)


def percent(share: float | None) -> str:
    """Return a share as people read it."""
    return "-" if share is None else f"{100 * share:.1f} %"


def _row(name: str, score: Score) -> tuple[str, ...]:
    return (
        name,
        str(score.n),
        percent(score.score),
        f"{100 * score.low:.1f} … {100 * score.high:.1f}",
        percent(score.chance),
        percent(score.majority),
        percent(score.question_only),
        percent(score.swapped),
    )
