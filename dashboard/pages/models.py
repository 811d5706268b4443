"""Models: every version, who reigned when, and one version with the evidence about it."""

from __future__ import annotations

import streamlit as st

from dashboard.showing import head, nothing
from dashboard.site import asked
from dashboard.sources.models import called, models
from dashboard.version_parts import chosen
from dashboard.versions_table import all_versions, history, live_on

head("models")
if not models():
    nothing("No model was registered yet.", "`uni-moe run` trains, judges and registers one.")
    st.stop()
name = asked("version")
if name is not None:
    version = called(name)
    if version is None:
        nothing("No version has this number or id.", "Take one from the table below.")
    else:
        chosen(version)
live_on()
all_versions()
history()
