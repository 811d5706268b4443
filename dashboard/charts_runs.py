"""Charts of runs: curves with what happened on them, and the stages of a flow run. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from dashboard.charts import COLOURS, Drawn, Rows
from dashboard.curve_rows import Gathered
from dashboard.tints import ALARM, LINES, RED, SKY

_DASHES = ([1, 0], [6, 2], [2, 2], [8, 2, 2, 2], [4, 4], [10, 3], [1, 3])
_SHAPES = {
    "alarm": "triangle-down",
    "went back": "cross",
    "resumed": "diamond",
    "nan": "square",
    "inf": "triangle-up",
    "-inf": "triangle-down",
}
_HEIGHT, _LEGEND = 260, 40


def curves(
    found: Gathered, *, y_title: str, is_log: bool = False, is_smooth: bool = False
) -> Drawn:
    """Draw curves; events are rules, and numbers that are not finite are marks at the lower axis.

    Args:
        found: the rows, by `dashboard.curve_rows.gather`.
        y_title: what is drawn, with its unit.
        is_log: whether the scale is logarithmic.
        is_smooth: whether the rows' smooth values are drawn over the raw ones.
    """
    names = list(dict.fromkeys(row["name"] for row in [*found.rows, *found.odd]))
    layers = [*_lines(found, names, y_title, is_log=is_log, is_smooth=is_smooth)]
    if found.marks:
        layers += _events(found)
    if found.odd:
        layers.append(_odd(found))
    drawn = alt.layer(*layers).resolve_scale(shape="independent")
    legends = sum((len(names) > 1, bool(found.marks), bool(found.odd)))
    return drawn.properties(height=_HEIGHT + _LEGEND * legends)


def _lines(
    found: Gathered, names: Sequence[str], y_title: str, *, is_log: bool, is_smooth: bool
) -> list[alt.Chart]:
    legend = None if len(names) < 2 else _legend()
    tooltip = [
        alt.Tooltip("name:N", title="curve"),
        alt.Tooltip("step:Q", format=","),
        alt.Tooltip("value:Q", format=".5~g"),
    ]
    scale = alt.Scale(type="log") if is_log else alt.Scale(zero=False, nice=True)
    base = _chart(found.rows).encode(
        x=alt.X("x:Q", title=found.x_title, scale=alt.Scale(nice=False, zero=False)),
        color=alt.Color("name:N", scale=_scale(names, _colours(names)), legend=legend),
        strokeDash=alt.StrokeDash("name:N", scale=_scale(names, _cycled(names, _DASHES))),
        tooltip=tooltip,
    )
    y = alt.Y("value:Q", title=y_title, scale=scale)
    smooth = alt.Y("smooth:Q", title=y_title, scale=scale)
    if len(found.rows) <= 2 * max(1, len(names)):  # a line through them would hardly be seen
        dots = base.mark_point(filled=False, size=60).encode(y=smooth)
    else:  # to point at, nothing to see
        told = {"x": "x:Q", "tooltip": tooltip}
        dots = _chart(found.rows).mark_point(size=60, opacity=0.0).encode(y=smooth, **told)
    if not is_smooth:
        return [base.mark_line(strokeWidth=1.8).encode(y=y), dots]
    faint = base.mark_line(strokeWidth=1, opacity=0.3).encode(y=y)
    return [faint, base.mark_line(strokeWidth=2.2).encode(y=smooth), dots]


def _legend() -> alt.Legend:
    return alt.Legend(
        title=None,
        orient="bottom",
        columns=3,
        symbolType="stroke",
        symbolOpacity=1,
        symbolStrokeWidth=3,
        symbolSize=300,
        labelLimit=260,
    )


def _events(found: Gathered) -> list[alt.Chart]:
    told = [alt.Tooltip("event:N"), alt.Tooltip("step:Q", format=","), alt.Tooltip("text:N")]
    base = _chart(found.marks).encode(x="x:Q", tooltip=told)
    kinds = list(dict.fromkeys(mark["event"] for mark in found.marks))
    shape = alt.Shape(
        "event:N",
        scale=_shapes(kinds),
        legend=alt.Legend(title="events", orient="bottom", direction="horizontal"),
    )
    return [
        base.mark_rule(strokeDash=[3, 3], color=RED),
        base.mark_point(filled=True, size=90, color=RED).encode(y=alt.value(0), shape=shape),
    ]


def _odd(found: Gathered) -> alt.Chart:
    kinds = list(dict.fromkeys(mark["kind"] for mark in found.odd))
    shape = alt.Shape(
        "kind:N",
        scale=_shapes(kinds),
        legend=alt.Legend(title="not finite", orient="bottom", direction="horizontal"),
    )
    told = [alt.Tooltip("name:N"), alt.Tooltip("step:Q", format=","), alt.Tooltip("kind:N")]
    marks = _chart(found.odd).mark_point(filled=True, size=110, color=ALARM)
    return marks.encode(x="x:Q", y=alt.value("height"), shape=shape, tooltip=told)


def stages(rows: Rows) -> Drawn:
    """Draw the stages of a flow run as bars in time.

    Args:
        rows: `stage`, `begin` and `end` in minutes since the first began, `lasted` and `status` as
            text, `label`, which stands beside the stage, and `is_this`.
    """
    named = [{**row, "named": f"{row['stage']}, {row['label']}"} for row in rows]
    base = alt.Chart(alt.InlineData(values=named)).encode(
        y=alt.Y("named:N", title=None, sort=None, axis=alt.Axis(labelLimit=320)),
        tooltip=["stage:N", "status:N", "lasted:N"],
    )
    bars = base.mark_bar(height={"band": 0.7}).encode(
        x=alt.X(
            "begin:Q", title="minutes since the first stage began", axis=alt.Axis(tickCount=10)
        ),
        x2="end:Q",
        color=alt.condition("datum.is_this", alt.value(RED), alt.value(SKY)),
    )
    return bars.properties(height=alt.Step(22))


def _chart(rows: Sequence[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=list(rows)))


def _scale(names: Sequence[str], values: Sequence[Any]) -> alt.Scale:
    return alt.Scale(domain=list(names), range=list(values))


def _shapes(kinds: Sequence[str]) -> alt.Scale:
    return _scale(kinds, [_SHAPES.get(kind, "circle") for kind in kinds])


def _colours(names: Sequence[str]) -> list[str]:
    told = _cycled(names, LINES)
    if all(name in COLOURS for name in names):
        return [COLOURS[name] for name in names]
    return told


def _cycled(names: Sequence[str], values: Sequence[Any]) -> list[Any]:
    return [values[place % len(values)] for place in range(len(names))]
