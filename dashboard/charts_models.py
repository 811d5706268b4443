"""Charts of registered models: who reigned when, and what the gate compared. Pure."""

from __future__ import annotations

import altair as alt

from dashboard.charts import Drawn, Rows
from dashboard.tints import BLUE, GREY, LINES, RED

_ROW_PX, _AROUND_PX = 36, 150  # a row; axis, its title and the legend


def reigns(rows: Rows) -> Drawn:
    """Draw who was the champion from when until when.

    Args:
        rows: `name` of a version, `since`, `until` and `how` it became the champion.
    """
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        y=alt.Y("name:N", title=None, sort=None, axis=_NAMES),
        tooltip=["name:N", "since:N", "until:N", "how:N"],
    )
    time = alt.X("since:T", title="time (UTC)", scale=alt.Scale(type="utc"))
    bars = base.mark_bar(height=12, color=BLUE, opacity=0.8).encode(x=time, x2="until:T")
    starts = base.mark_point(filled=True, size=110, opacity=1).encode(
        x=time,
        shape=alt.Shape("how:N", title="became the champion by", legend=_LEGEND),
        color=alt.Color("how:N", title="became the champion by", legend=_LEGEND, scale=_HOW),
    )
    return alt.layer(bars, starts).properties(height=_height(rows))


_LEGEND = alt.Legend(orient="bottom")
_NAMES = alt.Axis(labelLimit=140, labelOverlap=False)
_HOW = alt.Scale(range=list(LINES))


def differences(rows: Rows, margin: float | None) -> Drawn:
    """Draw candidate less champion by modality, with intervals and what the gate lets go.

    Args:
        rows: `name`, `difference`, `low`, `high` and `says`, a word; points of a hundred.
        margin: how many points a modality may lose; None where nobody told.
    """
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        y=alt.Y("name:N", title=None, sort=None, axis=_NAMES),
    )
    title = "candidate less champion (points of a hundred)"
    lines = base.mark_rule(strokeWidth=3, color=BLUE).encode(
        x=alt.X("low:Q", title=title), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=110, opacity=1).encode(
        x=alt.X("difference:Q", title=title),
        shape=alt.Shape("says:N", title="by its interval", legend=_LEGEND),
        color=alt.Color("says:N", title="by its interval", legend=_LEGEND, scale=_HOW),
        tooltip=["name:N", "difference:Q", "low:Q", "high:Q", "says:N"],
    )
    marks = [_upright(0.0, [1, 0], GREY)]
    if margin is not None:
        marks.append(_upright(-margin, [6, 3], RED))
        marks.append(_upright(margin, [6, 3], "#00000000"))  # not seen: 0 is not at the edge
    return alt.layer(*marks, lines, points).properties(height=_height(rows))


def _upright(at: float, dash: list[int], colour: str) -> alt.Chart:
    line = alt.Chart(alt.InlineData(values=[{"at": at}]))
    return line.mark_rule(strokeDash=dash, color=colour, strokeWidth=2).encode(x="at:Q")


def _height(rows: Rows) -> int:
    """Return the height of the whole picture."""
    return _AROUND_PX + _ROW_PX * len({row["name"] for row in rows})
