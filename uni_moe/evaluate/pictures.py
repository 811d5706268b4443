"""The report's pictures: scores beside guessing, losses, experts' load, what knock-outs cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from uni_moe.evaluate.report import ordered
from uni_moe.records import EvalReport

ByLayer = Mapping[str, Sequence[float]]

_BLUE, _ORANGE, _GREY = "#2b6cb0", "#e08a3c", "#8a8a8a"
_GUESSES = (("chance", "#d2d2d2"), ("majority", "#ababab"), ("question_only", "#848484"))
_STYLE: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 9.0, "axes.axisbelow": True}


def draw(report: EvalReport, folder: Path) -> list[Path]:
    """Write the pictures and return their files. The same report gives the same bytes."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        drawn = [_save(_scores(report), folder / "scores.png")]
        if report.losses:
            drawn.append(_save(_losses(report), folder / "losses.png"))
        for name, table, look in (
            ("load", report.load, _LOAD),
            ("knock_out", report.knock_out, _KNOCK_OUT),
        ):
            if any(table.values()):
                drawn.append(_save(_maps(table, report.slots, look), folder / f"{name}.png"))
    return drawn


def _scores(report: EvalReport) -> Figure:
    """Draw a bar for the score, one for swapped media and three for guessing, by modality."""
    names = ordered(report.modalities)
    figure, axes = _figure(8.4, 4.2)
    rows = [
        *((guess.replace("_", "-"), color, guess) for guess, color in _GUESSES),
        ("media swapped", _ORANGE, "swapped"),
        ("score", _BLUE, "score"),
    ]
    width = 0.16
    for i, (label, color, field) in enumerate(rows):
        places, heights = [], []
        for x, name in enumerate(names):
            value = getattr(report.modalities[name], field)
            if value is not None:
                places.append(x + (i - 2) * width)
                heights.append(100 * value)
        axes.bar(places, heights, width, label=label, color=color)
    for x, name in enumerate(names):
        score = report.modalities[name]
        away = [[100 * (score.score - score.low)], [100 * (score.high - score.score)]]
        axes.errorbar(x + 2 * width, 100 * score.score, away, color="black", capsize=3, lw=1)
        axes.annotate(
            f"{100 * score.score:.0f}",
            (x + 2 * width, 100 * score.high),
            (0, 3),
            textcoords="offset points",
            ha="center",
        )
    axes.set_xticks(range(len(names)), [f"{m}\n{report.modalities[m].n} items" for m in names])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("score, %")
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y", color="#e8e8e8")
    axes.set_title("Learned: blue stands far above grey.  Media used: orange falls back to grey.")
    axes.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)
    return figure


def _losses(report: EvalReport) -> Figure:
    """Draw a line from before to after for each phase and modality."""
    rows = [
        (phase, modality, values["before"], values["after"])
        for phase, by_modality in report.losses.items()
        for modality, values in ((name, by_modality[name]) for name in ordered(by_modality))
    ]
    figure, axes = _figure(8.4, 0.27 * len(rows) + 1.2)
    places = range(len(rows))
    before, after = [row[2] for row in rows], [row[3] for row in rows]
    axes.hlines(places, before, after, color="#c9c9c9", lw=2, zorder=1)
    axes.scatter(before, places, color=_GREY, label="before", zorder=2, clip_on=False)
    axes.scatter(after, places, color=_BLUE, label="after", zorder=3, clip_on=False)
    axes.set_yticks(places, [f"{phase}: {modality}" for phase, modality, _, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.05 * max(*before, *after))
    axes.set_xlabel("validation loss, nats per token")
    axes.grid(axis="x", color="#e8e8e8")
    axes.set_title("What each phase taught: blue should lie left of grey")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@dataclass(frozen=True)
class _Look:
    """How a table of layers, modalities and experts is drawn. Values are shares."""

    title: str
    unit: str
    colors: str
    signed: bool
    least: float  # the scale reaches at least so far, so that small differences stay pale


_LOAD = _Look(
    "Where tokens go: an expert that specializes is dark in its own modality's row",
    "share of visits, %",
    "Blues",
    signed=False,
    least=0.01,
)
_KNOCK_OUT = _Look(
    "What an expert is worth: red loses points when it is knocked out, blue gains them",
    "points lost",
    "RdBu_r",
    signed=True,
    least=0.1,
)


def _maps(table: Mapping[str, ByLayer], slots: Sequence[str], look: _Look) -> Figure:
    """Draw one map a layer: modalities downwards, experts to the right."""
    names = ordered(table)
    layers = sorted(table[names[0]], key=int)
    top = max(look.least, *(abs(v) for of in table.values() for row in of.values() for v in row))
    columns = min(len(layers), 4)
    lines = -(-len(layers) // columns)
    wide = max(0.62 * len(slots), 1.8)
    figure = Figure(
        figsize=(max(1.8 + wide * columns, 7.0), 0.7 + (1.25 + 0.36 * len(names)) * lines),
        layout="constrained",
    )
    grid = figure.subplots(lines, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(layers):
            axes.set_axis_off()
            continue
        values = [[100 * v for v in table[name][layers[place]]] for name in names]
        low = -100 * top if look.signed else 0.0
        image = axes.imshow(values, vmin=low, vmax=100 * top, cmap=look.colors, aspect="auto")
        _label(axes, values, image.norm, look.colors)
        axes.set_xticks(range(len(slots)), [f"{i} {slot}" for i, slot in enumerate(slots)])
        axes.tick_params(axis="x", rotation=35, length=0)
        axes.tick_params(axis="y", length=0)
        axes.set_yticks(range(len(names)), names if place % columns == 0 else [""] * len(names))
        axes.set_xlabel("expert slot")
        axes.set_title(f"layer {layers[place]}", fontsize=9)
    figure.colorbar(image, ax=list(grid.flat), label=look.unit, shrink=0.9)
    figure.suptitle(look.title, fontsize=10)
    return figure


def _label(
    axes: Axes, values: Sequence[Sequence[float]], norm: mpl.colors.Normalize, colors: str
) -> None:
    """Write each cell's number, light on dark."""
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            red, green, blue, _ = colormaps[colors](norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text = f"{value:.0f}" if round(value) else "0"
            axes.text(x, y, text, ha="center", va="center", color="white" if dark else "black")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    roomy = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(width, height), layout=roomy)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, file: Path) -> Path:
    """Write a picture without date or program in it."""
    FigureCanvasAgg(figure)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    return file
