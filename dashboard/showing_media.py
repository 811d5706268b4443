"""How a medium is put on a page: a picture, frames, a player, or why there is none."""

from __future__ import annotations

import streamlit as st

from dashboard.sources.media import Shown
from dashboard.words import plain


def show(shown: Shown, alt: str = "") -> None:
    """Show a medium.

    Args:
        shown: the medium, from `dashboard.sources.media`.
        alt: what it shows in words, where that is known, such as a caption; data.
    """
    if shown.problem is not None:
        st.warning(plain(shown.problem), icon=":material/hide_image:")
        return
    told = " ".join(f"{shown.about}. {alt}".split())[:500]
    if shown.film is not None:
        st.video(shown.film, format=shown.film_type or "video/mp4", alt=told)
    if shown.pictures:
        several = len(shown.pictures)
        alts = [f"{number} of {several}: {told}" for number in range(1, several + 1)]
        st.image(list(shown.pictures), alt=alts, width=280 if several == 1 else 104)
    if shown.sound is not None:
        st.audio(shown.sound, format="audio/wav", alt=told)
    st.caption(plain(shown.about))
