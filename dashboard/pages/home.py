"""Home: what is live, what runs, what is broken, in one look."""

from __future__ import annotations

import streamlit as st

from dashboard.home_parts import broken, live_now, retrained, running, ten_questions
from dashboard.showing import head

head("home")
left, rest = st.columns([3, 7], gap="small")
with left.container(border=True, gap="xsmall"):
    live_now()
with rest:
    middle, right = st.columns([5, 4], gap="small")
    with middle.container(border=True, gap="xsmall"):
        retrained()
    with middle.container(border=True, gap="xsmall"):
        broken()
    with right.container(border=True, gap="xsmall"):
        running()
    with st.container(border=True, gap="xsmall"):
        ten_questions()
