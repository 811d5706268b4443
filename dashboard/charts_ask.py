"""Charts of an answer: which experts its tokens visited. Pure."""

from __future__ import annotations

import altair as alt

from dashboard.charts import Drawn, Rows

_CELL_PX, _NARROW_PX = 26, 22
_DARK_FROM = 0.6  # of a share: letters on it are white


def token_visits(rows: Rows) -> Drawn:
    """Draw, for each token of an answer and each sparse layer, the expert that weighs most.

    Args:
        rows: `place`, `token`, `layer`, `expert`, `name` and `share`; one for each cell.
    """
    places = {row["place"]: row["token"] for row in rows}
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        x=alt.X(
            "place:O",
            title="token of the answer, in order",
            axis=alt.Axis(labelExpr=_label(places), labelAngle=-40, labelOverlap=False),
        ),
        y=alt.Y("layer:O", title="sparse layer", sort="descending"),
        tooltip=["token:N", "layer:O", "expert:O", "name:N", alt.Tooltip("share:Q", format=".0%")],
    )
    cells = base.mark_rect(stroke="white", strokeWidth=1).encode(
        color=alt.Color(
            "share:Q",
            title="weight of the best expert",
            scale=alt.Scale(domain=[0, 1], scheme="blues"),
            legend=alt.Legend(format="%", orient="top"),
        )
    )
    return alt.layer(cells, _numbers(base, "expert:O", None)).properties(
        width=max(260, _CELL_PX * len(places)),
        height=alt.Step(_NARROW_PX),
    )


def prompt_visits(rows: Rows) -> Drawn:
    """Draw how the visits of each modality's positions spread over the experts.

    Args:
        rows: `modality`, `expert`, `name` and `share`, a mean over the sparse layers.
    """
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        x=alt.X("name:N", title="expert", sort=None, axis=alt.Axis(labelAngle=-40)),
        y=alt.Y("modality:N", title=None, sort=None),
        tooltip=["modality:N", "name:N", alt.Tooltip("share:Q", format=".1%")],
    )
    cells = base.mark_rect(stroke="white", strokeWidth=1).encode(
        color=alt.Color(
            "share:Q",
            title="share of visits",
            scale=alt.Scale(domain=[0, 1], scheme="blues"),
            legend=alt.Legend(format="%", orient="top"),
        )
    )
    return alt.layer(cells, _numbers(base, "share:Q", ".0%")).properties(height=alt.Step(32))


def _numbers(base: alt.Chart, what: str, form: str | None) -> alt.Chart:
    """Write what a cell says into it: colour alone says nothing."""
    text = alt.Text(what) if form is None else alt.Text(what, format=form)
    letters = alt.condition(f"datum.share > {_DARK_FROM}", alt.value("white"), alt.value("black"))
    return base.mark_text(fontSize=12).encode(text=text, color=letters)


def _label(places: dict[int, str]) -> str:
    """Return an expression that names a token by its place: two tokens may be alike."""
    names = ", ".join(f"'{place}': '{_quoted(token)}'" for place, token in places.items())
    return f"({{{names}}})[datum.value]"


def _quoted(token: str) -> str:
    """Return text that stands between quotes in an expression and ends none."""
    return "".join(letter if letter.isalnum() or letter in " .,?!:-" else _escape(letter)
                   for letter in token[:12])  # fmt: skip


def _escape(letter: str) -> str:
    return "".join(f"\\u{unit:04x}" for unit in _units(letter))


def _units(letter: str) -> list[int]:
    data = letter.encode("utf-16-be", errors="replace")
    return [int.from_bytes(data[n : n + 2], "big") for n in range(0, len(data), 2)]
