"""What Streamlit runs: the frame around all pages. `uni-moe dashboard` starts it.

It lies in a folder of its own. A folder `pages` beside it would be taken for pages that stand
alone: the first visitor of a new server could open one without this frame and its log-in.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.gate import passed
from dashboard.showing import told
from dashboard.site import PLACES, page
from dashboard.sources.workspace import workspace
from dashboard.words import plain

STYLE = Path(__file__).parent / "page.css"
ICON = Path(__file__).parent / "icon.svg"  # Streamlit's own icons would be fetched from outside

st.set_page_config(page_title="Uni-MoE", page_icon=str(ICON), layout="wide")
st.html(STYLE)  # a file of ours: nothing of data is in it
chosen = st.navigation([page(name) for name in PLACES])
if passed():
    with st.sidebar:
        st.caption(plain(workspace().root.name))
    with told():
        chosen.run()
