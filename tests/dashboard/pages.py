"""Pages run without a browser, by Streamlit's own test runner."""

from pathlib import Path

from streamlit.testing.v1 import AppTest

import dashboard
from dashboard.sources.workspace import WORKSPACE

HOME = Path(dashboard.__file__).parent
APP = HOME / "entry" / "app.py"
PATIENCE_S = 30
DATABASE = None  # the address of a server, where a test has one


def opened(monkeypatch, root, page="home", /, **query):
    """Open a page of a workspace; what it shows stands in the answer."""
    monkeypatch.setenv(WORKSPACE, str(root))
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    if DATABASE is not None:
        monkeypatch.setenv("UNI_MOE_DATABASE_URL", DATABASE)
    app = AppTest.from_file(str(APP), default_timeout=PATIENCE_S)
    for name, value in query.items():
        app.query_params[name] = str(value)
    if page == "home":
        return app.run()
    app.run()
    app.switch_page(str(HOME / "pages" / f"{page}.py"))
    for name, value in query.items():
        app.query_params[name] = str(value)
    return app.run()


def said(app):
    """Return all the text that a page shows, line by line."""
    kinds = (
        *("title", "header", "subheader", "caption", "markdown", "text", "code"),
        *("error", "warning", "info", "success"),
    )
    return "\n".join(str(one.value) for kind in kinds for one in getattr(app, kind))
