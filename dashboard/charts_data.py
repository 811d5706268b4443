"""Charts of data: where samples went, by modality, licence and phase. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from dashboard.charts import COLOURS, Drawn, Rows
from dashboard.tints import AMBER, BLUE, GREY, PURPLE, RED, SKY

_FATES = {
    "accepted": BLUE,
    "quarantined": RED,
    "seen": BLUE,
    "held out": SKY,
    "truncated": AMBER,
    "truncated to nothing": RED,
    "not reached": GREY,
    "removed": PURPLE,
    **COLOURS,
}


def stacked(rows: Rows, *, across: str, unit: str, order: Sequence[str]) -> Drawn:
    """Draw bars that are parted by what became of each thing; a label says the number.

    Args:
        rows: `across`, `fate` and `count`.
        across: the column that names a bar.
        unit: what is counted.
        order: the fates, or modalities, that there may be, as they are stacked.
    """
    found = {row["fate"] for row in rows}
    domain = [one for one in order if one in found]
    scale = alt.Scale(domain=domain, range=[_FATES[one] for one in domain])
    colour = alt.Color("fate:N", title=None, scale=scale, legend=alt.Legend(orient="top"))
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        y=alt.Y(f"{across}:N", title=None, sort=None, axis=alt.Axis(labelLimit=260)),
        x=alt.X("count:Q", title=unit, stack="zero"),
        color=colour,
        order=alt.Order("place:Q"),
        tooltip=[f"{across}:N", "fate:N", alt.Tooltip("count:Q", format=",")],
    )
    return base.mark_bar(stroke="white", strokeWidth=1).properties(height=alt.Step(26))
