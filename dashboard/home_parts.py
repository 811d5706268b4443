"""The parts of the page Home."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import streamlit as st

from dashboard import charts, exams
from dashboard.showing import chart, live, nothing, told
from dashboard.site import link
from dashboard.sources import audit, lately, versions
from dashboard.sources.evaluation import scores_of
from dashboard.sources.models import champion, models, reigns
from dashboard.words import ago, lasting, percent, plain, short, since_s, when
from uni_moe.registry.read import RunLine, Version
from uni_moe.registry.run_ends import Progress

_LIVE_S, _SLOW_S = 4.0, 30.0  # what runs, and what changes with a decision or an end
_MOST_RUNNING = 3
_LONGEST = 100  # letters of a line, some two rows
_MARKS = {
    "done": (":material/check_circle:", "green"),
    "promoted": (":material/check_circle:", "green"),
    "running": (":material/play_circle:", "blue"),
    "refused": (":material/block:", "orange"),
    "failed": (":material/error:", "red"),
    "died": (":material/heart_broken:", "red"),
}


@live(_SLOW_S)
def live_now() -> None:
    """Show the champion, since when it is live, and how good it is."""
    version = champion()
    if version is None:
        _title("No model is live")
        nothing("Nothing was promoted yet.", "`uni-moe run` trains, judges and registers a model.")
        return
    since = next((one.since for one in reversed(reigns()) if one.model == version.model), None)
    found = scores_of((version.report,), "modality").get(version.report, {})
    _title(f"Version {version.number} is live")
    mean = plain(percent(exams.mean_of(found)))
    st.markdown(f":small[mean score **{mean}**, since {plain(_since(since))}]")
    rows = exams.score_rows({str(version.number): found})
    if rows:
        chart(
            charts.scores(rows).properties(height=60 + 22 * len(rows)),
            rows,
            title="Right answers by modality",
            look_for="A line is a score's interval. One that reaches the orange tick only guesses.",
            key="live-scores",
        )
    st.caption(f"model {short(version.model)}, {plain(version.reason, 80)}")
    link("models", "Evidence and passport", version=version.number)


@live(_SLOW_S)
def retrained() -> None:
    """Show the last retraining, what the gate said of it, and why."""
    _title("Last retraining")
    if not models():
        st.caption("No model was registered yet.")
        return
    newest = max(models(), key=lambda one: (one.at, one.number))
    found = versions.decisions_about(newest.model)
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        link("models", f"Version {newest.number}", version=newest.number)
        _badge(versions.judgement(newest))
        st.caption(plain(ago(newest.at)))
    if not newest.model_folder.is_dir():
        st.caption(plain(versions.removed().get(newest.model, "its weights are kept elsewhere")))
    if found and found[-1].verdict.reasons:
        st.markdown(f":small[{plain(found[-1].verdict.reasons[0], 220)}]")
    last = versions.last_decision()
    if last is not None and last.verdict.candidate != newest.model:
        number = next((m.number for m in models() if m.model == last.verdict.candidate), None)
        name = short(last.verdict.candidate) if number is None else f"version {number}"
        said = f"{versions.verdict_word(last)} {name}, {ago(last.at)}"
        st.caption(plain(f"Since then: {said}"))


@live(_SLOW_S)
def broken() -> None:
    """Show what is stale, broken or alarming, or that nothing is known to be."""
    _title("Stale, broken, alarms")
    shown = [line() for line in (_audit, _contract, _troubles, _stale, _alarms, _lag)]
    if not any(shown):
        st.markdown(
            ":material/check_circle: Nothing known: runs, cards and the audit log are in order."
        )
    st.caption("Changed params, code or raw files: `uni-moe stale` asks the graph.")


@live(_LIVE_S)
def running() -> None:
    """Show what runs now, and how the runs of the last 24 hours ended."""
    _title("Runs now")
    open_now = lately.running()
    if not open_now:
        st.caption("Nothing runs.")
    for one in open_now[:_MOST_RUNNING]:
        _run(one, lately.progress(one.id), is_alone=len(open_now) == 1)
    if len(open_now) > _MOST_RUNNING:
        link("runs", f"and {len(open_now) - _MOST_RUNNING} more", status="running")
    counts = lately.outcomes()
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        for status in ("done", "failed", "died", "running"):
            if counts.get(status):
                _badge(status, f"{counts[status]} {status}")
    label = "Runs of the last 24 hours" if counts else "No run began in the last 24 hours"
    link("runs", label, since="24h")


@live(_SLOW_S)
def ten_questions() -> None:
    """Show the questions that people ask, each with the page where its answer stands."""
    _title("Questions people ask")
    for question, page, query in _questions():
        link(page, question, icon=None, **query)


def _questions() -> Iterator[tuple[str, str, dict[str, object]]]:
    now, before = _champions()
    last = max(models(), key=lambda one: (one.at, one.number), default=None)
    refused = versions.last_refused()
    known = {one.model: one.number for one in models()}
    number = None if now is None else now.number
    difference: dict[str, object] = {"view": "difference", "a": before, "b": number}
    yield "What made this model?", "lineage", {"artifact": number}
    yield "What changed since the champion before?", "lineage", difference
    yield (
        "Why was the last challenger rejected?",
        "models",
        {"version": known.get(refused or ""), "view": "verdicts"},
    )
    newest = number if last is None else last.number
    other = None if newest == number else number
    yield (
        "Why is it worse on audio?",
        "evaluation",
        {"version": newest, "against": other, "items": "audio"},
    )
    yield "Which expert is dead?", "experts", {"version": number}
    yield "Which samples were refused, and why?", "data", {"view": "quarantine"}
    yield "What ran last night?", "runs", {"since": "24h"}
    yield "What was live on a date?", "models", {"at": f"{datetime.now(UTC):%Y-%m-%d}"}
    yield "Can this sample be removed, and what follows?", "data", {"view": "sample"}
    yield "Is it reproducible?", "models", {"version": number, "view": "reproducible"}


def _champions() -> tuple[Version | None, int | None]:
    """Return the champion, and the number of the one before it."""
    now = champion()
    others = [one.number for one in reigns() if now and one.model != now.model and one.number]
    return now, others[-1] if others else None


def _run(one: RunLine, far: Progress, *, is_alone: bool) -> None:
    """Show a run: one that is alone with what is known of it, others on a line each."""
    said = []
    if far.step is not None:
        said.append(f"step {far.step} of {far.steps}" if far.steps else f"step {far.step}")
    if far.loss is not None:
        said.append(f"loss {far.loss:.4g}")
    said.append(f"for {lasting(since_s(one.started))}")
    label = one.stage if is_alone else f"{one.stage}: {', '.join(said)}"
    link("run", label, icon=_MARKS["running"][0], run=one.id)
    if is_alone:
        st.caption(plain(", ".join(said)))
        if far.step is not None and far.steps:
            st.progress(min(1.0, max(0.0, far.step / far.steps)))


def _audit() -> bool:
    found = audit.chain()
    if found.problem is None:
        return False
    _line(f"The audit log is broken: {found.problem}", "red")
    link("audit", "Where it is broken")
    return True


def _contract() -> bool:
    with told():
        found = lately.contract()
        if found is None or found.kept:
            return False
        said = "; ".join(found.breaches) or "a rule of a table is not kept"
        _line(f"The contract {found.contract} {found.version} is broken: {said}", "red")
        link("data", "The contract's verdict", view="contracts")
    return True  # also where its report cannot be read, which stands there


def _troubles() -> bool:
    known = {status: lately.troubles(status) for status in ("failed", "died")}
    newest = max(
        (one for page in known.values() for one in page.lines[:1]),
        key=lambda one: one.started,
        default=None,
    )
    if newest is None:
        return False
    why = newest.error or "its heartbeat stopped without an end"
    _line(f"{newest.stage} {newest.status} {ago(newest.started)}: {why}", "red")
    span = f"{lately.DAYS}d"
    with st.container(horizontal=True, gap="small"):
        for status, page in known.items():
            if page.total:
                label = f"{page.total:,} {status} in {lately.DAYS} days"
                link("runs", label, status=status, since=span)
    return True


def _stale() -> bool:
    with told():
        found = lately.stale()
        if found and lately.running():
            st.caption("Runs are at work: what they make anew is stale until they end.")
        if found.artifacts:
            one, *others = found.artifacts
            count = f"{len(found.artifacts)} artifacts are stale, first " if others else "stale: "
            _line(f"{count}{one.name}: {one.why}".replace("artifacts/", ""), "orange")
        if found.drifts:
            names = ", ".join(sorted({one.name.rpartition("/")[2] for one in found.drifts}))
            _line(f"version {found.champion} was made from other data: {names}", "orange")
        if not found.is_known:
            _line(f"no data of version {found.champion} are known: drift is not known", "orange")
        return bool(found) or not found.is_known
    return True  # that it cannot be said stands there


def _alarms() -> bool:
    found = lately.alarms()
    if not found:
        return False
    one = found[0]
    _line(f"alarm of {one.stage}, {ago(one.at)}: {one.text or one.kind}", "orange")
    more = f"; {len(found)} of the last {lately.LOOKED_AT} runs" if len(found) > 1 else ""
    link("run", f"The run of this alarm{more}", run=one.run)
    return True


def _lag() -> bool:
    """Say what neither the index nor a look into folders tells."""
    found = lately.fresh()
    if found.left_out:
        _line(
            f"The index does not know {found.unknown:,} runs; {found.left_out:,} older ones are "
            "not looked into. uni-moe index brings them in.",
            "orange",
        )
    if found.broken:
        one, *others = found.broken
        more = f" and {len(others)} more" if others else ""
        link("run", f"cannot be read: {one}{more}", icon=":material/warning:", run=one)
    return bool(found.left_out or found.broken)


def _line(text: str, colour: str) -> None:
    icon = ":material/error:" if colour == "red" else ":material/warning:"
    st.markdown(f":small[:{colour}[{icon}] {plain(text, _LONGEST)}]")


def _badge(word: str, label: str | None = None) -> None:
    icon, colour = _MARKS.get(word, (":material/info:", "gray"))
    st.badge(plain(label or word), icon=icon, color=colour)  # type: ignore[arg-type] # a literal


def _title(text: str) -> None:
    st.markdown(f"**{text}**")


def _since(moment: str | None) -> str:
    return f"{when(moment)} ({ago(moment)})"
