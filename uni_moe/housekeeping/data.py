"""What of DVC's data may go: what no lock names, here or in workspaces that share the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from uni_moe.artifacts import Layout
from uni_moe.errors import LineageError
from uni_moe.housekeeping.here import Known, many
from uni_moe.housekeeping.plan import Plan, Staying
from uni_moe.registry.graphs import LOCK, kept_locks, locks_apart, standing_locks
from uni_moe.storage.dvc_data import Kept
from uni_moe.storage.dvc_names import LIST
from uni_moe.storage.dvc_unnamed import (
    family,
    lists_below,
    lists_in,
    locked_roots,
    unnamed,
    unnamed_runs,
)
from uni_moe.storage.objects import Files, Objects

Lists = Sequence[Callable[[str], bytes | None]]


def plan_data(
    layout: Layout, about: Known, data: Kept, now: datetime, remote: Objects | None = None
) -> Plan:
    """Return what goes of DVC's cache: what neither a lock here nor one of a kept version names.

    What is written from `now` on stays: only workspaces known to share the cache are kept out.
    """
    cache = data.cache.parent.parent
    if not cache.resolve().is_relative_to(layout.root.resolve()):
        why = "other workspaces share this cache, and their locks are not known here"
        return Plan((), (Staying("here", f"DVC's cache {cache}", why),))
    store = Files(cache)
    try:
        named = named_objects(layout, about, data, remote)
    except LineageError as error:
        return Plan((), (Staying("here", "DVC's cache", f"{error.what} {error.remedy}"),))
    gone = unnamed(store, named, now.timestamp(), before_s=now.timestamp())
    gone |= unnamed_runs(store, named)
    why = "neither dvc.lock nor the lock of a version that stays names it"
    return Plan(tuple(many("here", "data", gone, why)))


def named_objects(
    layout: Layout, about: Known, data: Kept, remote: Objects | None = None
) -> set[str]:
    """Return the names of DVC's objects that are reachable from a workspace's records.

    Raises:
        LineageError: a version that stays has no lock, or a list is spoilt.
    """
    roots = set(data.roots).union(*map(locked_roots, _locks_of_versions(layout, about)))
    old = {place.name for place in about.old_apart}
    for file in (file for number, file in locks_apart(layout) if number not in old):
        roots |= locked_roots(file.read_text(encoding="utf-8"))
    places = [lists_below(data.cache), *([lists_in(remote)] if remote is not None else [])]
    for other, lock in _restored(layout):  # they share the cache
        roots |= locked_roots(lock) | _made_there(other, places)
    return family(roots, places)


def _locks_of_versions(layout: Layout, about: Known) -> Iterator[str]:
    """Give the text of every lock of a version that stays; a forgotten one has none.

    Raises:
        LineageError: a version that stays has no lock, or one was changed.
    """
    standing = standing_locks(layout)
    forgotten = {one.model for one in about.stones if one.kind == "forgotten"}
    for one in (one for one in about.versions if one.model in about.kept):
        if one.model in forgotten and not one.folder.is_dir():
            continue
        # By wider rules of later, one stays whose weights went.
        locks = standing.get(one.model) or kept_locks(layout, one.model)
        if not locks:
            raise LineageError(
                f"Which data version {one.number} was made from is not known.",
                cause="it was registered before locks were kept, or dvc.lock was older then.",
                remedy="`uni-moe pull` brings its lock if the remote has it; else retire it.",
            )
        yield from locks


def sharing(layout: Layout) -> list[Path]:
    """Return links to all workspaces that share DVC's cache: restored, and restored from those."""
    links, seen, waiting = list[Path](), {layout.root.resolve()}, [layout]
    while waiting:
        for link in sorted(waiting.pop().sharing.glob("*")):
            place = link.resolve()
            if place not in seen:
                seen.add(place)
                links.append(link)
                waiting.append(Layout(place))
    return links


def _restored(layout: Layout) -> Iterator[tuple[Layout, str]]:
    """Give the workspaces that versions were restored into, each with the text of its lock.

    Raises:
        LineageError: one is not where it was.
    """
    for link in sharing(layout):
        lock = link / LOCK
        if not lock.is_file():
            raise LineageError(
                f"The workspace {link.readlink()} shares DVC's cache, and is not there.",
                cause="it was moved or removed after a version had been restored into it.",
                remedy=f"remove {link} if it is gone for good; if it was moved, let {link} lead to "
                "where it is.",
            )
        yield Layout(link.resolve()), lock.read_text(encoding="utf-8")


def _made_there(layout: Layout, places: Lists) -> set[str]:
    """Return what runs apart and versions of a restored workspace name, as far as it was made here.

    Versions that it fetched, and whose data never came, have no lists here.
    """
    locks = [file for _, file in locks_apart(layout)]
    kept = layout.store.glob(f"*/graph-*/{LOCK}")
    locks += [file for file in kept if (file.parents[1] / "model").is_dir()]
    named = {root for file in locks for root in locked_roots(file.read_text(encoding="utf-8"))}
    return {
        root
        for root in named
        if not root.endswith(LIST) or any(place(root) is not None for place in places)
    }
