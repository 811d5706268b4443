"""Charts of experts: heat maps of layers by experts, loads and entropies over time. Pure."""

from __future__ import annotations

from typing import Any

import altair as alt

from dashboard import tints
from dashboard.charts import COLOURS, Drawn, Rows

Ink = Any  # a condition; Altair's own type of it is not public
_DASHES = ([1, 0], [6, 2], [2, 2], [8, 2, 2, 2], [4, 4], [10, 3], [1, 2], [6, 2, 1, 2])
LINES = 8  # more experts than these are shown as a map over time
_CELLS, _ACROSS = 150, 8  # with a number in each; more would not be read
_WIDTH, _MAPS = 840, 3  # of a row of maps, and how many stand in it


def heat(rows: Rows) -> Drawn:
    """Draw a map a modality: a column an expert, a row a layer, the share of visits as colour.

    Args:
        rows: `modality`, `layer`, `expert` and `share`.
    """
    most = max((row["share"] or 0.0 for row in rows), default=1.0)
    colour = alt.Color(
        "share:Q",
        title="share of visits",
        scale=alt.Scale(scheme="cividis", domain=[0, most]),
        legend=_SHARES,
    )
    ink = alt.condition(f"datum.share < {most / 2}", alt.value("white"), alt.value("black"))
    return _maps(rows, "share:Q", ".0%", colour, ink)


def knock_outs(rows: Rows) -> Drawn:
    """Draw what the absence of each expert costs, a map a modality.

    Args:
        rows: `modality`, `layer`, `expert` and `points`.
    """
    most = max((abs(row["points"] or 0.0) for row in rows), default=1.0) or 1.0
    colour = alt.Color(
        "points:Q",
        title="right answers lost, points",
        scale=alt.Scale(scheme="purpleorange", domain=[most, -most]),
        legend=alt.Legend(orient="bottom"),
    )
    is_strong = f"abs(datum.points) > {0.6 * most}"
    ink = alt.condition(is_strong, alt.value("white"), alt.value("black"))
    return _maps(rows, "points:Q", ".1f", colour, ink)


_SHARES = alt.Legend(format=".0%", orient="bottom")


def _maps(rows: Rows, field: str, number: str, colour: alt.Color, ink: Ink) -> Drawn:
    """Draw cells with their numbers inside, as long as these can be read."""
    layers, experts = (len({row[name] for row in rows}) for name in ("layer", "expert"))
    kinds = list(dict.fromkeys(row["modality"] for row in rows))
    tip = number.replace(".0", ".2")
    base = alt.Chart().encode(
        x=alt.X("expert:N", title="expert", sort=None, axis=_EXPERTS),
        y=alt.Y("layer:N", title="layer", sort=None),
        tooltip=["modality:N", "layer:N", "expert:N", alt.Tooltip(field, format=tip)],
    )
    cells = base.mark_rect(stroke=tints.GREY, strokeWidth=0.5).encode(color=colour)
    drawn = alt.layer(cells)
    if layers * experts <= _CELLS and experts <= _ACROSS:
        drawn = alt.layer(
            cells,
            base.mark_text(fontSize=12).encode(text=alt.Text(field, format=number), color=ink),
        )
    across = min(_MAPS if experts > 5 else 5, max(1, len(kinds)))
    sized = drawn.properties(width=_WIDTH // across, height=min(600, max(70, 36 * layers)))
    return sized.facet(
        facet=alt.Facet("modality:N", sort=kinds, header=_HEADER),
        columns=across,
        data=alt.InlineData(values=[dict(row) for row in rows]),
    )


_EXPERTS = alt.Axis(labelAngle=-60, labelOverlap=False)
_HEADER = alt.Header(title=None, labelFontSize=14)


def loads(rows: Rows) -> Drawn:
    """Draw the load of a layer's experts over time: lines, or a map where they are many.

    Args:
        rows: `step`, `expert` and `share`.
    """
    names = list(dict.fromkeys(row["expert"] for row in rows))
    base = alt.Chart(alt.InlineData(values=[dict(row) for row in rows]))
    tip = ["step:Q", "expert:N", alt.Tooltip("share:Q", format=".1%")]
    if len(names) > LINES:
        return base.mark_rect().encode(
            x=alt.X("step:O", title="step", axis=alt.Axis(labelOverlap=True)),
            y=alt.Y("expert:N", sort=None),
            color=alt.Color("share:Q", title="share of visits", scale=alt.Scale(scheme="cividis")),
            tooltip=tip,
        )
    return base.mark_line(strokeWidth=2).encode(
        x=alt.X("step:Q", title="step"),
        y=alt.Y("share:Q", title="share of visits", axis=alt.Axis(format="%")),
        color=alt.Color("expert:N", sort=None, scale=_tints(names), legend=_LINES),
        strokeDash=alt.StrokeDash("expert:N", sort=None, scale=_dashes(names), legend=_LINES),
        tooltip=tip,
    )


_LINES = alt.Legend(symbolType="stroke", symbolSize=400, symbolStrokeWidth=2, labelLimit=200)


def entropies(rows: Rows) -> Drawn:
    """Draw a router's entropy over time, a line a modality.

    Args:
        rows: `step`, `modality` and `entropy share`.
    """
    names = list(dict.fromkeys(row["modality"] for row in rows))
    known = [COLOURS.get(name, tints.GREY) for name in names]
    colour = alt.Scale(domain=names, range=known)
    return (
        alt.Chart(alt.InlineData(values=[dict(row) for row in rows]))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y(
                "entropy share:Q",
                title="share of an even choice's entropy",
                scale=alt.Scale(zero=False, domainMax=1),
                axis=alt.Axis(format="%"),
            ),
            color=alt.Color("modality:N", sort=None, scale=colour, legend=_LINES),
            strokeDash=alt.StrokeDash("modality:N", sort=None, scale=_dashes(names), legend=_LINES),
            tooltip=["step:Q", "modality:N", alt.Tooltip("entropy share:Q", format=".1%")],
        )
    )


def _tints(names: list[str]) -> alt.Scale:
    return alt.Scale(domain=names, range=list(tints.LINES[: len(names)]))


def _dashes(names: list[str]) -> alt.Scale:
    return alt.Scale(domain=names, range=[_DASHES[i % len(_DASHES)] for i in range(len(names))])
