"""Experts: which one does what, where each comes from, and which is dead."""

from __future__ import annotations

import time
from collections import OrderedDict

import streamlit as st

from dashboard import experts_shown as part
from dashboard.choosing import numbers, version_asked
from dashboard.showing import head, live, nothing
from dashboard.site import asked, link
from dashboard.sources import routing, runs
from dashboard.sources.experts import (
    origins,
    params_of,
    report,
    rules_in,
    slots_of,
    surgery,
)
from dashboard.sources.models import called, models, usual
from dashboard.sources.versions import standing
from dashboard.words import plain, short, when
from uni_moe.config import RouterAlarms
from uni_moe.registry.read import Version

_EVERY_S = 5.0
_MOVES_S = 300.0  # a run whose routing was still so long is not watched any more
_KEPT = "routing of runs"
_MOST_KEPT = 3  # runs of one visitor


def kept_of(run: str) -> routing.Kept:
    """Return what was read of a run's routing, with what came since; of a few runs it is kept."""
    all_kept: OrderedDict[str, routing.Kept] = st.session_state.setdefault(_KEPT, OrderedDict())
    kept = routing.read_on(run, all_kept.get(run) or routing.Kept())
    all_kept[run] = kept
    all_kept.move_to_end(run)
    while len(all_kept) > _MOST_KEPT:
        all_kept.popitem(last=False)
    return kept


def of_run(run: str) -> None:
    """Show the experts of a training, live while it runs."""
    record = runs.record(run)
    if record is None:
        nothing("There is no run of this name here.", "Choose one on the page Runs.")
        link("runs", "Runs")
        return
    st.text(f"{record.get('stage')}, {record.get('status')}, begun {when(record.get('started'))}")
    link("run", "Losses, speed and events of this run", run=run)
    link("experts", "Experts of the registered versions")
    rules, slots = rules_in(runs.parameters(record)), slots_of(record)
    if is_moving(run):
        live(_EVERY_S)(at_work)(run, rules, slots)
    else:
        in_training(run, rules, slots)
    for said in routing.alarms(run):
        st.warning(plain(said), icon=":material/notifications:")


def is_moving(run: str) -> bool:
    """Say whether a run is at work and its routing grew a short while ago."""
    record = runs.record(run)
    is_running = record is not None and record.get("status") == "running"
    return is_running and routing.still_s(run, time.time()) < _MOVES_S


def at_work(run: str, rules: RouterAlarms | None, slots: tuple[str, ...]) -> None:
    """Show a training as long as it moves; then the whole page is made once more, and rests."""
    if not is_moving(run):
        st.rerun()
    in_training(run, rules, slots)


def in_training(run: str, rules: RouterAlarms | None, slots: tuple[str, ...]) -> None:
    """Show what a training's routers did: the last steps, then all the time."""
    kept = kept_of(run)
    if not kept.steps:
        part.no_routing(run)
        return
    part.of_last_steps(kept, rules, slots)
    part.over_time(kept, slots)


def of_version(version: Version) -> None:
    """Show the experts of a registered model."""
    st.selectbox(
        "Version",
        numbers(),
        index=numbers().index(str(version.number)),
        key="version",
        bind="query-params",
        width=200,
    )
    st.text(
        f"version {version.number}, {standing(version)}, {short(version.model)}: {version.reason}"
    )
    told, params = report(version.number, version.report), params_of(version)
    receipt = surgery(version)
    slots = tuple(told.slots) or (receipt.slots if receipt else ())
    rules = rules_in(params)
    part.judged(told, rules, slots, params)
    made = origins(version.model)
    run = made[_MODEL].run if _MODEL in made else None
    part.came_from(receipt, slots, made)
    part.changed(made, params, version, receipt, slots)
    part.knocked_out(told, slots)
    st.subheader("In training", anchor=False)
    if run is None or not runs.has_folder(run):
        nothing("The run that trained this model is not here.", "`uni-moe pull` brings records.")
        return
    link("experts", f"The training alone: {run}", run=run)
    in_training(run, rules, slots)


_MODEL = "artifacts/model"

head("experts")
run = asked("run")
if run is not None:
    of_run(run)
elif not models():
    nothing("No model is registered.", "`uni-moe run` trains, judges and registers one.")
else:
    number = version_asked()
    version = usual() if number is None else called(number)
    if version is not None:
        of_version(version)
