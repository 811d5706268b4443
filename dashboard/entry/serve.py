"""Starts Streamlit with what pages rest on in memory already: the first visitor waits for none."""

from __future__ import annotations

import importlib

HEAVY = (
    *("pandas", "pyarrow", "altair", "sqlalchemy.orm"),
    *("dashboard.showing", "dashboard.gate", "dashboard.sources.models", "dashboard.sources.runs"),
)


def main() -> None:
    """Import, then do as `python -m streamlit` does."""
    for name in HEAVY:  # by the main thread: visitors' threads might meet a half of one
        importlib.import_module(name)
    from streamlit.web.cli import main as streamlit

    streamlit(prog_name="streamlit")


if __name__ == "__main__":
    main()
