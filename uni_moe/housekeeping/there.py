"""What of a remote may go: by one listing of its two parts, when all its records are here.

Whatever the remote registered is known by then, so what nobody registered is of a push that broke
off. Records stay: runs, cards, reports, locks, the audit log, tombstones.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from uni_moe.artifacts import Layout
from uni_moe.errors import LineageError
from uni_moe.housekeeping.data import named_objects
from uni_moe.housekeeping.here import Known, going_key, many
from uni_moe.housekeeping.keys import sort_names
from uni_moe.housekeeping.plan import Going, Plan, Staying
from uni_moe.housekeeping.thinning import BULKY
from uni_moe.registry.parcels import REMOVED
from uni_moe.storage.dvc_data import Kept
from uni_moe.storage.dvc_unnamed import unnamed
from uni_moe.storage.objects import Objects
from uni_moe.storage.sums import SUMS

_MODEL, _RUNS = "/model", "runs/"


def plan_there(
    place: tuple[Layout, Kept],
    about: Known,
    here: Plan,
    parts: tuple[Objects, Objects],
    now: datetime,
) -> Plan:
    """Return what of a remote goes and stays. Nobody may push meanwhile.

    Args:
        place: the workspace, with all records of the remote, and what its own lock names.
        about: what the registry says by now.
        here: what goes of the workspace.
        parts: the objects of our part of the remote, and of DVC's.
        now: the moment that the age of drafts is counted back from.

    Raises:
        LineageError: a kept lock was changed.
        StoreError: the remote cannot be reached or refuses.
    """
    (layout, data), (store, dvc) = place, parts
    listed = store.listed()
    names = {name: one.size_bytes for name, one in listed.items()}
    retired = {f"{one.model}{_MODEL}": one for one in about.retired}
    found = sort_names(
        names,
        lambda key: key in retired or not about.is_reachable(key, listed[key + SUMS].at_s),
    )
    goes = [going_key("remote", key, own, retired.get(key)) for key, own in found.keys.items()]
    goes += many("remote", "leftovers", found.strays, "a push that broke off left it")
    goes += _thin(layout, names, here)
    return Plan(tuple(goes)) + _data(layout, about, data, dvc, now)


def _thin(layout: Layout, names: Mapping[str, int], here: Plan) -> list[Going]:
    """Give the bulky records of runs that went here, or go now."""
    soon = {path for one in here.goes if one.kind == "runs" for path in one.paths}
    sizes: dict[str, int] = {}
    for name, size in names.items():
        run, _, file = name.rpartition("/")
        if name.startswith(_RUNS) and file in BULKY:
            folder = layout.runs / run.removeprefix(_RUNS)
            went = (folder / REMOVED).is_file() and not (folder / file).is_file()
            if went or layout.name_of(folder / file) in soon:
                sizes[name] = size
    return list(many("remote", "runs", sizes, "they go here, or went"))


def _data(layout: Layout, about: Known, data: Kept, dvc: Objects, now: datetime) -> Plan:
    try:
        named = named_objects(layout, about, data, dvc)
    except LineageError as error:
        return Plan((), (Staying("remote", "DVC's data", f"{error.what} {error.remedy}"),))
    # What is young may be of somebody who has pushed and not registered yet.
    gone = unnamed(dvc, named, now.timestamp(), before_s=about.before.timestamp())
    why = "neither dvc.lock here nor the lock of a version that stays names it, and it is old"
    return Plan(tuple(many("remote", "data", gone, why)))
