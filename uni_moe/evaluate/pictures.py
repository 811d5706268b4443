"""The report's pictures: scores beside guessing, the experts' load, what a knock-out costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from uni_moe.records import EvalReport

mpl.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 - the backend is chosen first

mpl.rcParams.update({"font.size": 9, "svg.hashsalt": "uni-moe"})
_BARS = (("chance", "#c7c7c7"), ("majority", "#9e9e9e"), ("question_only", "#757575"))


def draw(report: EvalReport, folder: Path) -> list[Path]:
    """Write the pictures and return their files. The same report gives the same bytes."""
    drawn = [_scores(report, folder / "scores.png"), _losses(report, folder / "losses.png")]
    drawn.append(
        _maps(
            report.load,
            report.slots,
            folder / "load.png",
            title="Where tokens go: share of visits by expert (a specialist is dark in one row)",
            largest=1.0,
        )
    )
    if report.knock_out:
        drawn.append(
            _maps(
                report.knock_out,
                report.slots,
                folder / "knock_out.png",
                title="What an expert is worth: points lost when it is knocked out",
                largest=None,
            )
        )
    return drawn


def _scores(report: EvalReport, file: Path) -> Path:
    names = list(report.modalities)
    figure, axes = plt.subplots(figsize=(8, 3.6))
    width = 0.16
    rows: list[tuple[str, str, list[float]]] = [
        (name.replace("_", " "), color, [getattr(report.modalities[m], name) for m in names])
        for name, color in _BARS
    ]
    swapped = [report.modalities[m].swapped or 0.0 for m in names]
    rows.append(("media swapped", "#e08a3c", swapped))
    rows.append(("score", "#2b6cb0", [report.modalities[m].score for m in names]))
    for i, (label, color, values) in enumerate(rows):
        places = [x + (i - 2) * width for x in range(len(names))]
        axes.bar(places, [100 * v for v in values], width, label=label, color=color)
    for x, name in enumerate(names):
        score = report.modalities[name]
        away = [[100 * (score.score - score.low)], [100 * (score.high - score.score)]]
        axes.errorbar(x + 2 * width, 100 * score.score, away, color="black", capsize=3)
    axes.set_xticks(range(len(names)), [f"{m}\nn = {report.modalities[m].n}" for m in names])
    axes.set_ylabel("right answers, %")
    axes.set_ylim(0, 105)
    axes.set_title("Is it learned (blue far above grey), and are the media used (orange near grey)?")
    axes.legend(ncols=5, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)
    return _save(figure, file)


def _losses(report: EvalReport, file: Path) -> Path:
    rows = [
        (phase, modality, values["before"], values["after"])
        for phase, by_modality in report.losses.items()
        for modality, values in by_modality.items()
    ]
    figure, axes = plt.subplots(figsize=(8, 0.28 * len(rows) + 1.1))
    for y, (_, _, before, after) in enumerate(rows):
        axes.plot([before, after], [y, y], color="#9e9e9e", zorder=1)
        axes.scatter([before], [y], color="#9e9e9e", zorder=2, label="before" if not y else None)
        axes.scatter([after], [y], color="#2b6cb0", zorder=2, label="after" if not y else None)
    axes.set_yticks(range(len(rows)), [f"{phase}, {modality}" for phase, modality, _, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("validation loss, nats per token")
    axes.set_title("What each phase taught: the loss should move left")
    axes.legend(frameon=False)
    return _save(figure, file)


def _maps(
    values: Mapping[str, Mapping[str, Sequence[float]]],
    slots: Sequence[str],
    file: Path,
    *,
    title: str,
    largest: float | None,
) -> Path:
    modalities = list(values)
    layers = list(next(iter(values.values())))
    figure, grid = plt.subplots(
        1, len(layers), figsize=(2.2 + 2.9 * len(layers), 0.42 * len(modalities) + 1.9),
        squeeze=False, layout="constrained",
    )
    top = largest or max(0.05, *(abs(v) for of in values.values() for row in of.values() for v in row))
    for axes, layer in zip(grid[0], layers, strict=True):
        table = [list(values[modality][layer]) for modality in modalities]
        image = axes.imshow(
            table, vmin=0 if largest else -top, vmax=top, cmap="Blues" if largest else "RdBu_r",
            aspect="auto",
        )
        for y, row in enumerate(table):
            for x, value in enumerate(row):
                dark = abs(value) > 0.6 * top
                axes.text(
                    x, y, f"{100 * value:.0f}", ha="center", va="center",
                    color="white" if dark else "black", fontsize=8,
                )
        axes.set_xticks(range(len(slots)), [f"{i} {slot}" for i, slot in enumerate(slots)], rotation=30)
        axes.set_yticks(range(len(modalities)), modalities if axes is grid[0][0] else [])
        axes.set_title(f"layer {layer}", fontsize=9)
    figure.colorbar(image, ax=list(grid[0]), label="%" if largest else "points / 100", shrink=0.9)
    figure.suptitle(title, fontsize=10)
    return _save(figure, file, tight=False)


def _save(figure: Any, file: Path, *, tight: bool = True) -> Path:  # noqa: ANN401
    box = "tight" if tight else None
    figure.savefig(file, dpi=110, bbox_inches=box, metadata={"Software": None})
    plt.close(figure)
    return file
