"""Pages run without a browser, by Streamlit's own test runner."""

import json
from pathlib import Path

from streamlit.testing.v1 import AppTest

import dashboard
from dashboard.sources.workspace import WORKSPACE

HOME = Path(dashboard.__file__).parent
APP = HOME / "entry" / "app.py"
PATIENCE_S = 30
DATABASE = None  # the address of a server, where a test has one


def opened(monkeypatch, root, page="home", /, **query):
    """Open a page of a workspace by its address, as a visitor whom nobody led there.

    What it shows stands in the answer. A page's file is named as its address is.
    """
    monkeypatch.setenv(WORKSPACE, str(root))
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    if DATABASE is not None:
        monkeypatch.setenv("UNI_MOE_DATABASE_URL", DATABASE)
    app = AppTest.from_file(str(APP), default_timeout=PATIENCE_S)
    for name, value in query.items():
        app.query_params[name] = str(value)
    if page != "home":
        app.switch_page(str(HOME / "pages" / f"{page}.py"))
    return app.run()


def said(app):
    """Return all the text that a page shows, line by line."""
    kinds = (
        *("title", "header", "subheader", "caption", "markdown", "text", "code"),
        *("error", "warning", "info", "success"),
    )
    return "\n".join(str(one.value) for kind in kinds for one in getattr(app, kind))


def elements(app):
    """Return all elements of a page and of its sidebar, in their order."""

    def inside(block):
        for one in block.children.values():
            yield from inside(one) if hasattr(one, "children") else [one]

    return [*inside(app.main), *inside(app.sidebar)]


def sent(app):
    """Return all that a browser is sent of a page: texts, tables, charts, links, widgets."""
    return "\n".join(str(one.proto) for one in elements(app))


def frames(app):
    """Return the tables of a page, each as a list of rows."""
    return [json.loads(one.value.to_json(orient="records")) for one in app.dataframe]
