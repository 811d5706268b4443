"""The item browser: what was asked, with its media, and what one or two models answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from dashboard.choosing import page_asked, page_control, pages_of
from dashboard.exams import outcomes
from dashboard.showing import nothing
from dashboard.showing_media import show
from dashboard.sources.evaluation import answers, chosen, sample
from dashboard.sources.media import medium
from dashboard.words import percent, plain
from uni_moe.records import Sample
from uni_moe.registry.read import Version

PAGE = 5  # items: each may bring a film
_LETTERS = 2_000  # of a text
_ALL = "everything"


def browse(names: Sequence[str], first: Version, other: Version | None) -> None:
    """Show the items of a modality or task that ended as a person wants to see."""
    ends = outcomes(first.number, None if other is None else other.number)
    left, right = st.columns(2)
    name = left.selectbox("Modality or task", [_ALL, *names], key="items", bind="query-params")
    ended = right.selectbox("How it ended", list(ends), key="ended", bind="query-params")
    found = chosen(first, other, None if name in (None, _ALL) else name, ends[ended or "all"])
    if not found:
        nothing("No item ended so.", "Choose another end, modality or task above.")
        return
    pages = pages_of(len(found), PAGE)
    st.caption(f"{len(found)} items, {PAGE} on a page.")
    page_control("sheet", pages)
    start = (page_asked("sheet", pages) - 1) * PAGE
    part = found[start : start + PAGE]
    mine = answers(first, [one for one, _ in part])
    theirs: list[dict[str, Any]] | list[None] = [None] * len(part)
    if other is not None:
        theirs = answers(other, [two for _, two in part if two is not None])
    for (item, _), said, against in zip(part, mine, theirs, strict=True):
        with st.container(border=True):
            _asked(said, sample(item), item.modality)
            columns = st.columns(1 if other is None else 2)
            with columns[0]:
                _answered(first, said)
            if other is not None and against is not None:
                with columns[1]:
                    _answered(other, against)


def _asked(said: Mapping[str, Any], asked: Sample | None, modality: str) -> None:
    """Show the media, the question and the expected answer."""
    media, words = st.columns([2, 3])
    with media:
        if asked is None:
            st.caption("The sample is not in the corpus here: nothing of it can be shown.")
            st.caption("It was made anew or removed since; `dvc checkout` may bring it back.")
        elif not asked.media:
            st.caption("A question without media.")
        else:
            for ref in asked.media:
                show(medium("corpus", modality, ref), cut(asked.caption or asked.transcript))
    with words:
        st.caption(plain(f"{said.get('task')}, {said.get('group') or 'no group'}"))
        st.markdown("**Question**")
        st.text(cut(said.get("prompt")))
        st.markdown("**Expected answer**")
        st.code(cut(said.get("reference")), language=None, wrap_lines=True)
        st.caption(plain(f"key: {said.get('key')}"))


def _answered(version: Version, said: Mapping[str, Any]) -> None:
    """Show a model's answer, and whether it is right, in a word and a sign."""
    if said.get("correct"):
        verdict = ":material/check_circle: right"
    elif said.get("unparseable"):
        verdict = ":material/cancel: wrong: none of the choices"
    else:
        score = said.get("score")
        part = f" ({percent(score)})" if isinstance(score, float) and score else ""
        verdict = f":material/cancel: wrong{part}"
    st.markdown(f"**Version {version.number}**: {verdict}")
    st.code(cut(said.get("answer")), language=None, wrap_lines=True)
    if said.get("swapped_answer") is not None:
        st.caption(plain(f"with another item's media: {cut(said['swapped_answer'])}", 400))


def cut(text: object) -> str:
    """Return text of data, not without end; an empty one says so."""
    told = "" if text is None else str(text)
    if not told.strip():
        return "(nothing)"
    more = len(told) - _LETTERS
    return told if more <= 0 else f"{told[:_LETTERS]}… ({more:,} letters more)"
