"""What of a workspace may go: a look at the disk, under locks that keep others from writing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from uni_moe.artifacts import Layout, sha256_file
from uni_moe.audit_log import sound_log
from uni_moe.data.features import feature_folder, size_of
from uni_moe.data.kept_features import kept_features
from uni_moe.errors import LineageError
from uni_moe.housekeeping.keys import is_draft, model_of, sort_names
from uni_moe.housekeeping.plan import Going, Plan, Staying, Where
from uni_moe.housekeeping.retention import kept_versions
from uni_moe.housekeeping.thinning import BULKY, old_runs
from uni_moe.machine import Machine
from uni_moe.records import Card
from uni_moe.registry import read
from uni_moe.registry.cards import all_cards, reachable
from uni_moe.registry.graphs import kept_locks
from uni_moe.registry.tombstones import TOMBSTONES, Tombstone, standing, tombstones_in
from uni_moe.storage.blobs import LocalFolder
from uni_moe.storage.dvc_data import Kept
from uni_moe.storage.dvc_unnamed import (
    family,
    lists_below,
    lists_in,
    locked_roots,
    unnamed,
    unnamed_runs,
)
from uni_moe.storage.objects import Files, Objects
from uni_moe.train.state import states_in

Cards = Mapping[str, tuple[str, Card]]  # by id: the name then, and the card
_SHOWN = 3  # names of many that a line shows
_ASIDE = ("fetched-", "sent-", "judged")  # folders of state/ that one command uses
_OTHERS = ("features", "prefect", "up", "apart")  # those that look after themselves


@dataclass(frozen=True)
class Known:
    """What the registry says: all versions, those that stay and why, and what was forgotten.

    What was written `before` a time is old by the rules.
    """

    versions: Sequence[read.Version]
    kept: Mapping[str, str]
    stones: Sequence[Tombstone]
    before: datetime

    @property
    def retired(self) -> list[read.Version]:
        """The versions that no rule lets stay."""
        return [one for one in self.versions if one.model not in self.kept]

    def is_reachable(self, key: str) -> bool:
        """Say whether something reachable is kept under a key of a store; weights aside."""
        model = model_of(key)
        if model is None:
            return True
        if any(one.kind == "forgotten" and one.model == model for one in self.stones):
            return False
        return "/cards" in key or any(one.model == model for one in self.versions)


def known(layout: Layout, machine: Machine, now: datetime) -> Known:
    """Return what the registry says of a workspace's versions."""
    versions = read.models(layout)
    stones = tombstones_in(LocalFolder(layout.store).keys(TOMBSTONES))
    kept = kept_versions(versions, read.history(layout), machine.retention, now)
    return Known(
        versions=versions,
        kept={**_begun_with(all_cards(layout), versions, kept), **kept},
        stones=standing(stones, sound_log(layout).entries),
        before=now - timedelta(days=machine.retention.days),
    )


def _begun_with(
    cards: Cards, versions: Sequence[read.Version], kept: Mapping[str, str]
) -> dict[str, str]:
    """Return the versions that those which stay were tuned from, and why they stay, too."""
    numbers = {one.model: one.number for one in versions}
    return {
        parent: f"version {numbers[model]} was tuned from it"
        for model in kept
        for parent in reachable(cards, model)
        if parent in numbers and parent != model
    }


def plan_here(layout: Layout, machine: Machine, about: Known) -> Plan:
    """Return what of a workspace goes and stays, DVC's data aside. No stage may run meanwhile."""
    before = about.before
    stays = tuple(
        Staying("here", f"version {one.number} ({one.model[:12]})", about.kept[one.model])
        for one in about.versions
        if one.model in about.kept
    )
    goes = (
        *_store(layout, about),
        *_runs(layout, about, before),
        *_states(layout, before),
        *_features(layout, machine, before),
        *_left(layout),
    )
    return Plan(goes, stays)


def plan_data(
    layout: Layout, about: Known, data: Kept, now: datetime, remote: Objects | None = None
) -> Plan:
    """Return what goes of DVC's cache: what neither a lock here nor one of a kept version names.

    What is written from `now` on stays: a scheduled run may have begun.
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
    roots = set(data.roots)
    for one in about.versions:
        if one.model in about.kept:
            locks = kept_locks(layout, one.model)
            if not locks:
                raise LineageError(
                    f"Which data version {one.number} was made from is not known.",
                    cause="it was registered before locks were kept, or dvc.lock was older then.",
                    remedy="`uni-moe pull` brings its lock if the remote has it; else retire it.",
                )
            roots |= {root for lock in locks for root in locked_roots(lock)}
    for file in (*layout.apart.glob("**/dvc.lock"), *_restored(layout)):  # they share the cache
        roots |= locked_roots(file.read_text(encoding="utf-8"))
    places = [lists_below(data.cache), *([lists_in(remote)] if remote is not None else [])]
    return family(roots, places)


def _restored(layout: Layout) -> Iterator[Path]:
    """Give the locks of workspaces that versions were restored into.

    Raises:
        LineageError: one is not where it was.
    """
    for link in sorted(layout.sharing.glob("*")):
        lock = link / "dvc.lock"
        if not lock.is_file():
            raise LineageError(
                f"The workspace {link.readlink()} shares DVC's cache, and is not there.",
                cause="it was moved or removed after a version had been restored into it.",
                remedy=f"remove {link} if it is gone for good; if it was moved, let {link} lead to "
                "where it is.",
            )
        yield lock


def many(where: Where, kind: str, names: Mapping[str, int], why: str) -> Iterator[Going]:
    """Give what goes of many names as one line."""
    if names:
        shown = ", ".join(list(names)[:_SHOWN])
        rest = len(names) - _SHOWN
        name = f"{len(names)} file(s), {shown}{f' and {rest} more' if rest > 0 else ''}"
        yield Going(where, kind, name, why, sum(names.values()), tuple(names))


def _store(layout: Layout, about: Known) -> Iterator[Going]:
    """Give the weights of retired versions, keys of nobody, and what belongs to no key."""
    names = {name: one.size_bytes for name, one in Files(layout.store).listed().items()}
    retired = {f"{one.model}/model": one for one in about.retired}
    found = sort_names(names, lambda key: key in retired or not about.is_reachable(key))
    for key, own in found.keys.items():
        yield going_key("here", key, own, retired.get(key))
    yield from many("here", "leftovers", _below(layout.store, found.strays), "no key holds it")


def going_key(
    where: Where, key: str, own: Mapping[str, int], version: read.Version | None
) -> Going:
    """Return a key that goes: the weights of a retired version, or what nobody registered."""
    size = sum(own.values())
    if version is None:
        why = "no version that is registered here has it"
        return Going(where, "store", key, why, size, (key,))
    name = f"version {version.number} ({version.model[:12]}), of {version.at[:10]}"
    return Going(where, "weights", name, "no rule lets it stay", size, (key,))


def _below(folder: Path, names: Mapping[str, int]) -> dict[str, int]:
    return {f"{folder.name}/{name}": size for name, size in names.items()}


def _runs(layout: Layout, about: Known, before: datetime) -> Iterator[Going]:
    cards = all_cards(layout)
    kept = {card for one in about.kept for card in reachable(cards, one)}
    files = [folder / name for folder in old_runs(layout, kept, before) for name in BULKY]
    sizes = {layout.name_of(file): file.stat().st_size for file in files if file.is_file()}
    yield from many("here", "runs", sizes, f"they ended before {before:%Y-%m-%d}")


def _states(layout: Layout, before: datetime) -> Iterator[Going]:
    """Give unfinished trainings that stood still so long; what has ended has no states."""
    for stage, folder in states_in(layout):
        last = _newest(folder)
        if last < before.timestamp():
            why = f"{stage} stood still since {datetime.fromtimestamp(last):%Y-%m-%d}"
            name = layout.name_of(folder)
            yield Going("here", "states", name, why, size_of(folder), (name,))


def _features(layout: Layout, machine: Machine, before: datetime) -> Iterator[Going]:
    """Give the features that no process of this code and these packages reads, or that are old."""
    root = feature_folder(layout, machine.features)
    if not root.resolve().is_relative_to(layout.root.resolve()):
        return  # others may use it: `uni-moe features --clear`
    for one in kept_features(root):
        name = layout.name_of(root / one.name)
        why = _unusable(one.about)
        if why is None and _newest(root / one.name) < before.timestamp():
            why = f"nothing was added since {before:%Y-%m-%d}"
        if why is not None:
            yield Going("here", "features", name, why, one.size_bytes, (name,))


def _unusable(about: Mapping[str, Any]) -> str | None:
    """Say why nothing of today reads an encoder's features; None where something may."""
    for package, version in about.get("packages", {}).items():
        if _version(package) != version:
            return f"they were computed with {package} {version}"
    for module, sha256 in about.get("code", {}).items():
        try:
            found = find_spec(module)
        except ModuleNotFoundError:  # its package is gone, too
            found = None
        if found is None or found.origin is None or sha256_file(Path(found.origin)) != sha256:
            return f"they were computed by another {module}"
    return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _left(layout: Layout) -> Iterator[Going]:
    """Give what processes that were killed left in folders that only they used."""
    sizes: dict[str, int] = {}
    for folder in (layout.artifacts, layout.runs, layout.state):
        for name, one in Files(folder).listed().items():
            first = name.partition("/")[0]
            aside = folder == layout.state and first.startswith(_ASIDE)
            theirs = folder == layout.state and first in _OTHERS
            if (is_draft(name) or aside) and not theirs:
                sizes[f"{folder.name}/{name}"] = one.size_bytes
    yield from many("here", "leftovers", sizes, "whoever wrote it has died")


def _newest(folder: Path) -> float:
    """Return when something was last written below a folder."""
    times = [one.at_s for one in Files(folder).listed().values()]
    return max(times, default=folder.stat().st_mtime)
