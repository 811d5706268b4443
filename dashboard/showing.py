"""What every page shows alike: its head, errors with cause and remedy, empty states, numbers."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec

import streamlit as st

from dashboard.charts import Drawn, Rows
from dashboard.site import PLACES
from dashboard.words import plain
from uni_moe.errors import UniMoeError

Given = ParamSpec("Given")
_MOST_ROWS = 10_000  # of a table behind a chart
_LONGEST = 2_000  # letters of what a chart says beside its title


def head(name: str) -> None:
    """Show a page's title and the question that it answers."""
    place = PLACES[name]
    st.title(place.title, anchor=False)
    st.caption(place.question)


@contextmanager
def told() -> Iterator[None]:
    """Show an error of ours as what, cause and remedy, in place of what could not be shown."""
    try:
        yield
    except UniMoeError as error:
        st.error(plain(error.what), icon=":material/error:")
        st.text(f"cause:  {error.cause}\nremedy: {error.remedy}")


def live(every_s: float) -> Callable[[Callable[Given, None]], Callable[Given, None]]:
    """Run a part of a page again and again by itself; the rest of the page is not touched."""

    def made(part: Callable[Given, None]) -> Callable[Given, None]:
        @st.fragment(run_every=every_s)
        @wraps(part)
        def shown(*given: Given.args, **named: Given.kwargs) -> None:
            with told():
                part(*given, **named)

        return shown

    return made


def nothing(what: str, remedy: str) -> None:
    """Show that there is nothing to show, and what to do next. Both are our own words."""
    st.info(f"{what} {remedy}", icon=":material/info:")


def selection_key(name: str, ids: Iterable[object]) -> str:
    """Return a key for a table whose rows are these: other rows carry no selection over.

    Streamlit keeps the places of rows that are selected, whatever stands in them by now.
    """
    told = hashlib.sha256("\n".join(map(str, ids)).encode(errors="replace"))
    return f"{name}-{told.hexdigest()[:16]}"


def chart(
    drawn: Drawn,
    rows: Rows,
    *,
    title: str,
    look_for: str,
    key: str,
) -> None:
    """Show a chart with its title, what to look for, and its numbers as a table and as CSV.

    Args:
        drawn: the chart, from `dashboard.charts`.
        rows: its numbers.
        title: what it shows, with the unit; it may name what data name, and is shown as it is.
        look_for: what a healthy or a sick one looks like, shown so, too; also the text alternative.
        key: of its widgets, one of a kind on the page.
    """
    st.markdown(f"**{plain(title)}**")
    st.caption(plain(look_for, _LONGEST))
    st.altair_chart(drawn, width="stretch", alt=f"{title}. {look_for}", key=f"{key}-chart")
    with st.expander(f"Numbers: {plain(title)}", key=f"{key}-numbers", on_change="rerun") as part:
        if part.open:
            if len(rows) > _MOST_ROWS:
                st.caption(f"The first {_MOST_ROWS:,} of {len(rows):,} rows; the CSV holds all.")
            st.dataframe(
                list(rows)[:_MOST_ROWS],
                hide_index=True,
                key=f"{key}-table",
                alt=f"The numbers of the chart: {title}",
            )
            st.download_button(
                "Download CSV",
                csv_text(rows),
                file_name=f"{key}.csv",
                mime="text/csv",
                key=f"{key}-csv",
                on_click="ignore",
            )


def csv_text(rows: Rows) -> str:
    """Return rows as CSV. A spreadsheet is kept from reading text of data as a formula."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
