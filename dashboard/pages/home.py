"""Home: what is live, what runs, what is broken, in one look."""

from __future__ import annotations

import streamlit as st

from dashboard import charts
from dashboard.showing import chart, head, nothing
from dashboard.site import link
from dashboard.sources.models import decisions, models, reigns, scores
from dashboard.words import ago, short, when
from uni_moe.registry.read import Version


def champion() -> Version | None:
    """Return the version that is live."""
    return next((one for one in models() if one.is_champion), None)


def live(version: Version) -> None:
    """Show the champion and how good it is."""
    since = next(one.since for one in reversed(reigns()) if one.model == version.model)
    st.subheader(f"Version {version.number} is live", anchor=False)
    st.text(f"since {when(since)} ({ago(since)}), {short(version.model)}: {version.reason}")
    link("models", "Evidence and passport", version=version.number)
    found = scores(version.report)
    rows = [
        {"name": name, "score": s.score, "low": s.low, "high": s.high, "chance": s.chance}
        for name, s in found.items()
    ]
    chart(
        charts.scores(rows),
        rows,
        title="Right answers by modality, share",
        look_for="Each line is the interval of a score. Look for one that reaches the orange tick: "
        "the model guesses there.",
        key="live-scores",
    )


head("home")
version = champion()
if version is None:
    nothing("No model is live.", "`uni-moe run` trains, judges and registers one.")
else:
    live(version)
if decisions():
    last = decisions()[-1]
    st.subheader("The last verdict", anchor=False)
    st.text("\n".join(last.verdict.reasons))
