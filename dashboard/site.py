"""The pages: their names, files, titles and addresses, and links between them.

An address says all that a page shows: what a person sees, another sees under the same address. A
page reads what it is asked from `asked`, its widgets bind to the query string
(`bind="query-params"`), and what leads elsewhere is a `link` or `go`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from dashboard.words import plain

_FOLDER = Path(__file__).parent / "pages"


@dataclass(frozen=True)
class Place:
    """A page: its title, its symbol, and the question that it answers."""

    title: str
    icon: str
    question: str


PLACES = {
    "home": Place("Home", ":material/home:", "What is live, what runs, what is broken?"),
    "runs": Place("Runs", ":material/list:", "What ran, when, why, and how did it end?"),
    "run": Place("Run", ":material/monitoring:", "How does one training go?"),
    "experts": Place("Experts", ":material/hub:", "Which expert does what, and which is dead?"),
    "data": Place("Data", ":material/database:", "Which data came in, and what was refused?"),
    "evaluation": Place("Evaluation", ":material/school:", "How good is a model, and at what?"),
    "lineage": Place("Lineage", ":material/account_tree:", "What made this, and what came of it?"),
    "models": Place("Models", ":material/trophy:", "Which models are there, and which is live?"),
    "audit": Place("Audit", ":material/verified:", "Who decided what, and is the record whole?"),
    "ask": Place("Ask", ":material/chat:", "What does the model say to this?"),
}


def page(name: str) -> StreamlitPage:
    """Return a page by its name, which is its address, too."""
    place = PLACES[name]
    return st.Page(
        _FOLDER / f"{name}.py",
        title=place.title,
        icon=place.icon,
        url_path=name,
        default=name == "home",
    )


def asked(name: str) -> str | None:
    """Return what the address asks under a name; None where it is silent."""
    return st.query_params.get(name) or None


def link(name: str, label: str, *, icon: str | None = None, **query: object) -> None:
    """Show a link to a page. The label may come from data: it is shown as it is."""
    told = {key: str(value) for key, value in query.items() if value is not None}
    st.page_link(page(name), label=plain(label), icon=icon, query_params=told)


def go(name: str, **query: object) -> NoReturn:
    """Go to a page now, as after a click into a table."""
    st.switch_page(
        page(name), query_params={key: str(v) for key, v in query.items() if v is not None}
    )
