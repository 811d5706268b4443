"""What Streamlit runs: the frame around all pages. `uni-moe dashboard` starts it."""

from __future__ import annotations

import streamlit as st

from dashboard.showing import told
from dashboard.site import PLACES, page
from dashboard.sources.workspace import workspace
from dashboard.words import plain

st.set_page_config(page_title="Uni-MoE", page_icon=":material/hub:", layout="wide")
chosen = st.navigation([page(name) for name in PLACES])
with st.sidebar:
    st.caption(plain(workspace().root.name))
with told():
    chosen.run()
