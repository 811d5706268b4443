"""What people choose from: a version, a row of a table, a page. One way each, for all pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import streamlit as st

from dashboard.charts import Rows
from dashboard.showing import selection_key
from dashboard.site import asked
from dashboard.sources.models import called, models
from dashboard.words import plain


def version_asked(name: str = "version", also: Sequence[str] = ()) -> str | None:
    """Return the number of the version that the address asks for under a name.

    A beginning of an id becomes its version's number. What names no version is told
    and taken out of it. `also` are words that may stand there, too.
    """
    said = asked(name)
    if said is None or said in also:
        return said
    found = called(said)
    if found is None:
        st.warning(f"There is no version {plain(said, 80)}; choose one of the list.")
        st.query_params.pop(name, None)
        return None
    number = str(found.number)
    if number != said:
        st.session_state[name] = number  # of the control that comes; it writes the address
    return number


def numbers() -> list[str]:
    """Return the numbers of all versions, the newest first, as they stand in addresses."""
    return [str(one.number) for one in reversed(models())]


def chosen_row(  # noqa: PLR0913 - what a table is made of
    name: str,
    rows: Rows,
    ids: Sequence[Any],
    then: Callable[[Any], None],
    *,
    alt: str,
    height: int | Literal["auto"] = "auto",
    formats: Mapping[str, Any] | None = None,
) -> None:
    """Show a table of which one row can be chosen; `then` is called with its id.

    Args:
        name: of the table on its page.
        rows: what it shows.
        ids: what stands for each row.
        then: what to do before the page is shown anew.
        alt: what the table is, for who does not see it.
        height: in pixels.
        formats: column -> Streamlit's settings of it.
    """
    key = selection_key(name, ids)

    def picked() -> None:
        places = st.session_state[key].selection.rows
        if places and places[0] < len(ids):
            then(ids[places[0]])

    st.dataframe(
        list(rows),
        hide_index=True,
        key=key,
        on_select=picked,
        selection_mode="single-row",
        alt=alt,
        height=height,
        column_config=formats,
    )


def pages_of(total: int, size: int) -> int:
    """Return how many pages hold so many things; at least one."""
    return max(1, -(-total // size))


def page_asked(key: str, pages: int | None = None) -> int:
    """Return the page that is meant, before its control is shown; the first where none is.

    Args:
        key: of the control, and its name in the address.
        pages: how many there are, where that is known.
    """
    said = str(st.session_state.get(key) or asked(key) or "")
    number = int(said) if said.isdecimal() and len(said) < 10 else 1
    return max(1, number if pages is None else min(number, pages))


def page_control(key: str, pages: int) -> None:
    """Let a person go to another page, where there is more than one."""
    if page_asked(key) > pages:
        st.session_state[key] = pages
    if pages > 1:
        st.pagination(pages, key=key, bind="query-params")
