"""Charts of evaluations: versions side by side, scores over versions, differences. Pure."""

from __future__ import annotations

import altair as alt

from dashboard.charts import COLOURS, Drawn, Rows
from dashboard.exams import SHARES
from dashboard.tints import BLUE, GREY, LINES, RED

_TINTS = list(LINES[:6])
_SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]
_KIND = {"shown to be worse": RED, "no difference shown": GREY}
_KINDS = {**_KIND, "shown to be better": BLUE}
_SHARE = alt.Axis(format="%")


def side_by_side(rows: Rows) -> Drawn:
    """Draw the scores of versions with intervals, and what guessing reaches.

    Args:
        rows: `name`, `version`, `score`, `low`, `high` and `chance`, each a share.
    """
    names = list(dict.fromkeys(row["name"] for row in rows))
    versions = list(dict.fromkeys(row["version"] for row in rows))
    base = alt.Chart(alt.InlineData(values=[dict(row) for row in rows])).encode(
        y=alt.Y("name:N", title=None, sort=names, axis=alt.Axis(labelLimit=260)),
        yOffset=alt.YOffset("version:N", sort=versions),
    )
    scale = alt.Scale(domain=[0, 1])
    colour = alt.Color("version:N", title="version", sort=versions, scale=alt.Scale(range=_TINTS))
    lines = base.mark_rule(strokeWidth=3).encode(
        x=alt.X("low:Q", title="share of answers that are right", scale=scale, axis=_SHARE),
        x2="high:Q",
        color=colour,
    )
    points = base.mark_point(filled=True, size=90, opacity=1).encode(
        x=alt.X("score:Q", scale=scale, axis=_SHARE),
        color=colour,
        shape=alt.Shape("version:N", sort=versions, scale=alt.Scale(range=_SHAPES)),
        tooltip=["name:N", "version:N", *(alt.Tooltip(f"{n}:Q", format=".1%") for n in SHARES)],
    )
    guessed = base.mark_tick(thickness=2, color=GREY).encode(
        x=alt.X("chance:Q", scale=scale, axis=_SHARE)
    )
    height = 90 + len(names) * (18 * max(1, len(versions)) + 8)
    return alt.layer(guessed, lines, points).properties(height=min(height, 1200))


def over_versions(rows: Rows) -> Drawn:
    """Draw the score of each modality over versions, with its interval.

    Args:
        rows: `version`, `name`, `score`, `low` and `high`.
    """
    names = list(dict.fromkeys(row["name"] for row in rows))
    versions = list(dict.fromkeys(row["version"] for row in rows))
    tints = [COLOURS.get(name, GREY) for name in names]
    scale = alt.Scale(domain=names, range=tints)
    base = alt.Chart(alt.InlineData(values=[dict(row) for row in rows])).encode(
        x=alt.X("version:N", title="version", sort=versions, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("name:N", sort=names, scale=alt.Scale(range=[-12, 12])),
        color=alt.Color("name:N", title="modality", sort=names, scale=scale),
    )
    y = alt.Y("score:Q", title="right answers", scale=alt.Scale(domain=[0, 1]), axis=_SHARE)
    tip = ["version:N", "name:N", *(alt.Tooltip(f"{n}:Q", format=".1%") for n in SHARES[:3])]
    lines = base.mark_line(strokeWidth=1.5).encode(y=y)
    spans = base.mark_rule().encode(y=alt.Y("low:Q"), y2="high:Q")
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        y=y,
        shape=alt.Shape("name:N", title="modality", sort=names, scale=alt.Scale(range=_SHAPES)),
        tooltip=tip,
    )
    return alt.layer(lines, spans, points).properties(height=280)


def differences(rows: Rows) -> Drawn:
    """Draw how much better or worse a version is, with intervals, the worst first.

    Args:
        rows: `name`, `difference`, `low`, `high` (points) and `verdict`.
    """
    names = [row["name"] for row in rows]
    base = alt.Chart(alt.InlineData(values=[dict(row) for row in rows])).encode(
        y=alt.Y("name:N", title=None, sort=names, axis=alt.Axis(labelLimit=260)),
    )
    kinds = list(_KINDS)
    colour = alt.Color(
        "verdict:N",
        title=None,
        sort=kinds,
        scale=alt.Scale(domain=kinds, range=list(_KINDS.values())),
        legend=alt.Legend(orient="top", labelLimit=300),
    )
    title = "points of right answers against the other version"
    lines = base.mark_rule(strokeWidth=3).encode(
        x=alt.X("low:Q", title=title), x2="high:Q", color=colour
    )
    points = base.mark_point(filled=True, size=90, opacity=1).encode(
        x="difference:Q",
        color=colour,
        shape=alt.Shape(
            "verdict:N",
            title=None,
            sort=kinds,
            scale=alt.Scale(domain=kinds, range=["triangle-down", "circle", "triangle-up"]),
        ),
        tooltip=["name:N", "verdict:N", *(alt.Tooltip(f"{n}:Q", format="+.2f") for n in _POINTS)],
    )
    zero = alt.Chart(alt.InlineData(values=[{"x": 0}])).mark_rule(color=GREY).encode(x="x:Q")
    height = min(1200, 120 + 26 * len(names))
    return alt.layer(zero, lines, points).properties(height=height)


_POINTS = ("difference", "low", "high")
