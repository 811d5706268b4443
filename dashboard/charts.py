"""Charts, from rows to a picture. Pure: nothing is asked here, and nothing is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd  # noqa: F401 - whole before a second session's thread looks for it

from dashboard.exams import SHARES
from dashboard.tints import BLUE, GREEN, GREY, PINK, RED

Drawn = alt.Chart | alt.LayerChart | alt.FacetChart | alt.VConcatChart | alt.HConcatChart
Rows = Sequence[Mapping[str, Any]]

COLOURS = {
    "text": GREY,
    "image": BLUE,
    "video": RED,
    "audio": GREEN,
    "speech": PINK,
}


def scores(rows: Rows) -> Drawn:
    """Draw scores with their intervals and what guessing reaches.

    Args:
        rows: `name`, `score`, `low`, `high` and `chance`, each a share.
    """
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelOverlap=False)),
    )
    share = alt.Scale(domain=[0, 1])
    axis = alt.Axis(format="%")
    bars = base.mark_rule(strokeWidth=4, color=BLUE).encode(
        x=alt.X("low:Q", title="share of answers that are right", scale=share, axis=axis),
        x2="high:Q",
    )
    points = base.mark_point(filled=True, size=60).encode(
        x=alt.X("score:Q", scale=share, axis=axis),
        tooltip=["name:N", *(alt.Tooltip(f"{one}:Q", format=".1%") for one in SHARES[:4])],
    )
    guessed = base.mark_tick(thickness=2, color=RED).encode(
        x=alt.X("chance:Q", scale=share, axis=axis)
    )
    return alt.layer(bars, guessed, points)
