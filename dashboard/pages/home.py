"""Home: what is live, what runs, what is broken, in one look."""

from __future__ import annotations

import streamlit as st

from dashboard.home_parts import broken, live_now, retrained, running, ten_questions
from dashboard.showing import head

head("home")
left, middle, right = st.columns([254, 320, 339], gap="small")
with left.container(border=True, gap="xsmall"):
    live_now()
with middle.container(border=True, gap="xsmall"):
    retrained()
with middle.container(border=True, gap="xsmall"):
    broken()
with right.container(border=True, gap="xsmall"):
    running()
with right.container(border=True, gap="xsmall"):
    ten_questions()
