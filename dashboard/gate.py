"""Who may look: everyone who reaches the server, or who logs in where a provider is configured.

`[auth]` in a `secrets.toml` switches the log-in on: one of the workspace's `.streamlit`, or where
Streamlit looks itself. The log-in, its cookie and its check are Streamlit's own (OpenID Connect).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import streamlit as st
from streamlit.errors import StreamlitSecretNotFoundError

from dashboard.words import plain


def wants_login() -> bool:
    """Say whether a log-in is configured; a file that cannot be read lets nobody in."""
    try:
        return "auth" in st.secrets
    except StreamlitSecretNotFoundError:  # none, or one that is no TOML
        return any(Path(file).exists() for file in st.get_option("secrets.files"))


def passed() -> bool:
    """Return whether this visitor may see pages; show a log-in in their place where not."""
    if not wants_login():
        return True
    if getattr(st.user, "is_logged_in", False):
        with st.sidebar:
            st.caption(plain(st.user.get("email") or st.user.get("name") or "logged in"))
            st.button("Log out", on_click=st.logout, icon=":material/logout:")
        return True
    st.title("Uni-MoE", anchor=False)
    if importlib.util.find_spec("authlib") is None:
        st.error(
            "A log-in is configured, and what it needs is not installed. "
            "`pip install 'uni-moe-platform[dashboard]'` brings it.",
            icon=":material/lock:",
        )
        return False
    st.text("This dashboard is shown to people who are logged in.")
    st.button("Log in", on_click=st.login, type="primary", icon=":material/login:")
    return False
