"""Housekeeping of a workspace and its remote: plans, and does what a person agreed to.

No stage, run, push or pull may work in the workspace meanwhile, nor DVC, nor in workspaces that
share its cache: locks see to it. In the remote nobody may push through us: see
`uni_moe.storage.turns`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flows.dvc import data_at_rest, plan_stages
from flows.remote import the_remote
from uni_moe.alone import nobody_else
from uni_moe.artifacts import Layout
from uni_moe.audit import Asked
from uni_moe.housekeeping.acting import act_here, act_there
from uni_moe.housekeeping.data import plan_data, sharing
from uni_moe.housekeeping.here import known, plan_here
from uni_moe.housekeeping.plan import Plan
from uni_moe.housekeeping.there import plan_there
from uni_moe.machine import Machine
from uni_moe.registry import indexing
from uni_moe.registry.graphs import LOCK, keep_graph
from uni_moe.registry.travel import fetch_records
from uni_moe.registry.travel_log import part_to_send
from uni_moe.storage.dvc_data import Kept, data_of
from uni_moe.storage.objects import Objects
from uni_moe.storage.remote import STORE, check_folder, objects_of, open_store
from uni_moe.storage.turns import TURNS, at_work

Say = Callable[[str], None]


def plan_gc(root: Path, machine: Machine, *, remote: bool) -> Plan:
    """Return what may go of a workspace, and of its remote if asked.

    Nothing is removed, but for models that the remote says were forgotten elsewhere.

    Raises:
        LineageError: the audit log is broken, or records in the remote are.
        StageError: a stage, a run, a push or a pull is at work.
        StoreError: the remote cannot be reached or refuses, or somebody pushes to it.
    """
    with _at_rest(root, remote=remote) as place:
        return _plan(place, machine)


def do_gc(
    root: Path, machine: Machine, asked: Asked, *, remote: bool, agreed: Plan | None = None
) -> Plan:
    """Remove what may go, of a plan that somebody agreed to where there is one; return it.

    Raises:
        LineageError: the audit log is broken, or records in the remote are.
        StageError: a stage, a run, a push or a pull is at work.
        StoreError: the remote cannot be reached or refuses, or somebody pushes to it; the next
            time goes on from there.
    """
    with _at_rest(root, remote=remote) as place:
        plan = _plan(place, machine)
        plan = plan if agreed is None else plan.within(agreed)
        here = [one for one in plan.goes if one.where == "here"]
        cache = place.data.cache.parent.parent
        act_here(place.layout, [one for one in here if one.kind == "runs"], cache, asked)
        if place.theirs is not None:  # it sends the runs as they are by now
            store = open_store(root, the_remote(root))
            there = [one for one in plan.goes if one.where == "remote"]
            act_there(place.layout, there, (store, *place.theirs), asked)
        act_here(place.layout, [one for one in here if one.kind != "runs"], cache, asked)
    return plan


@dataclass(frozen=True)
class _Place:
    """A workspace at rest: what its lock names, and the two parts of its remote where asked."""

    layout: Layout
    data: Kept
    theirs: tuple[Objects, Objects] | None


@contextmanager
def _at_rest(root: Path, *, remote: bool) -> Iterator[_Place]:
    """Keep others out of a workspace, and out of its remote if asked, with all records here.

    Who works where the cache is shared is kept out, too: he may have made what no lock names yet.
    """
    layout = Layout(root)
    with ExitStack() as stack:
        stack.enter_context(nobody_else(layout))
        for other in (link.resolve() for link in sharing(layout) if (link / LOCK).is_file()):
            stack.enter_context(nobody_else(Layout(other)))
            stack.enter_context(data_at_rest(other))
        settled = (root / LOCK).is_file() and plan_stages(root).empty
        theirs = None
        if remote:
            place = the_remote(root)
            check_folder(place)
            stack.enter_context(at_work(objects_of(root, place, TURNS), "gc"))
            store = open_store(root, place)
            fetch_records(layout, store, lambda _line: None)
            part_to_send(layout, store)  # a log that goes another way may not remove there
            theirs = objects_of(root, place, STORE), data_of(root, place)
        indexing.index(layout)
        if settled:
            keep_graph(layout)
        yield _Place(layout, stack.enter_context(data_at_rest(root)), theirs)


def _plan(place: _Place, machine: Machine) -> Plan:
    now = datetime.now(UTC)
    about = known(place.layout, machine, now)
    plan = plan_here(place.layout, machine, about)
    dvc = place.theirs[1] if place.theirs is not None else None
    plan += plan_data(place.layout, about, place.data, now, dvc)
    if place.theirs is not None:
        own = (place.layout, place.data)
        plan += plan_there(own, about, plan, place.theirs, now)
    return plan
