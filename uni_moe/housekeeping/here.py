"""What of a workspace may go: a look at the disk, under locks that keep others from writing."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
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
from uni_moe.housekeeping.apart import apart_goes, newest, old_apart, young_apart
from uni_moe.housekeeping.keys import is_draft, model_of, sort_names
from uni_moe.housekeeping.plan import Going, Plan, Staying, Where
from uni_moe.housekeeping.retention import kept_versions
from uni_moe.housekeeping.thinning import BULKY, old_runs
from uni_moe.machine import Machine
from uni_moe.registry import read
from uni_moe.registry.cards import BEGINNING, CARDS, Cards, all_cards, beginnings, reachable
from uni_moe.registry.seen import SEEN
from uni_moe.registry.tombstones import TOMBSTONES, Tombstone, standing, tombstones_in
from uni_moe.storage.blobs import LocalFolder
from uni_moe.storage.objects import Files
from uni_moe.storage.sums import SUMS
from uni_moe.train.state import states_in

_SHOWN = 3  # names of many that a line shows
_ASIDE = ("fetched-", "sent-", "judged")  # folders of state/ that one command uses
_OTHERS = ("features", "prefect", "up", "apart")  # those that look after themselves


@dataclass(frozen=True)
class Known:
    """What the registry says: all versions, those that stay and why, and what was forgotten.

    `lineage` are the beginnings of the ids of cards that a version has, or that lie here; what was
    written `before` a time is old by the rules; `old_apart` are the workspaces apart that are.
    """

    versions: Sequence[read.Version]
    kept: Mapping[str, str]
    stones: Sequence[Tombstone]
    lineage: Container[str]
    before: datetime
    old_apart: Sequence[Path]

    @property
    def retired(self) -> list[read.Version]:
        """The versions that no rule lets stay."""
        return [one for one in self.versions if one.model not in self.kept]

    def is_reachable(self, key: str, written_s: float) -> bool:
        """Say whether something reachable is kept under a key of a store; weights aside.

        Cards, and what tells of samples, are written before a registration: while they are young
        one may still come.
        """
        model, young = model_of(key), written_s >= self.before.timestamp()
        if model is None:
            seen = key.startswith(f"{SEEN}/")
            return young or not seen or key.removeprefix(f"{SEEN}/")[:BEGINNING] in self.lineage
        if any(one.kind == "forgotten" and one.model == model for one in self.stones):
            return False
        if any(one.model == model for one in self.versions):
            return True
        return young and f"/{CARDS}" in key


def known(layout: Layout, machine: Machine, now: datetime) -> Known:
    """Return what the registry says of a workspace's versions."""
    versions = read.models(layout)
    stones = tombstones_in(LocalFolder(layout.store).keys(TOMBSTONES))
    kept = kept_versions(versions, read.history(layout), machine.retention, now)
    models = [one.model for one in versions]
    before = now - timedelta(days=machine.retention.days)
    return Known(
        versions=versions,
        kept={**_begun_with(all_cards(layout), versions, kept), **kept},
        stones=standing(stones, sound_log(layout).entries),
        lineage=beginnings(layout, models),
        before=before,
        old_apart=old_apart(layout, before),
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
        *_states(layout, about),
        *_features(layout, machine, before),
        *apart_goes(layout, about.old_apart),
        *_left(layout, about.old_apart),
    )
    return Plan(goes, stays)


def many(where: Where, kind: str, names: Mapping[str, int], why: str) -> Iterator[Going]:
    """Give what goes of many names as one line."""
    if names:
        shown = ", ".join(list(names)[:_SHOWN])
        rest = len(names) - _SHOWN
        name = f"{len(names)} file(s), {shown}{f' and {rest} more' if rest > 0 else ''}"
        yield Going(where, kind, name, why, sum(names.values()), tuple(names))


def _store(layout: Layout, about: Known) -> Iterator[Going]:
    """Give the weights of retired versions, keys of nobody, and what belongs to no key."""
    listed = Files(layout.store).listed()
    names = {name: one.size_bytes for name, one in listed.items()}
    retired = {f"{one.model}/model": one for one in about.retired}
    found = sort_names(
        names,
        lambda key: key in retired or not about.is_reachable(key, listed[key + SUMS].at_s),
    )
    for key, own in found.keys.items():
        yield going_key("here", key, own, retired.get(key))
    for folder in sorted(layout.store.glob(f"*/{CARDS}")):  # no key: it grows with each judgement
        key = folder.relative_to(layout.store).as_posix()
        if model_of(key) is not None and not about.is_reachable(key, newest(folder)):
            yield going_key("here", key, {key: size_of(folder)}, None)
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


def _states(layout: Layout, about: Known) -> Iterator[Going]:
    """Give unfinished trainings that stood still so long; what has ended has no states."""
    places = (layout, *young_apart(layout, about.old_apart))
    for stage, folder in (found for place in places for found in states_in(place)):
        last = newest(folder)
        if last < about.before.timestamp():
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
        if why is None and newest(root / one.name) < before.timestamp():
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


def _left(layout: Layout, old: Sequence[Path]) -> Iterator[Going]:
    """Give what processes that were killed left in folders that only they used."""
    sizes: dict[str, int] = {}
    runs_apart = young_apart(layout, old)
    states = [one.state for one in (layout, *runs_apart)]
    for folder in (layout.runs, *(one.artifacts for one in (layout, *runs_apart)), *states):
        for name, one in Files(folder).listed().items():
            first = name.partition("/")[0]
            aside = folder in states and first.startswith(_ASIDE)
            theirs = folder in states and first in _OTHERS
            if (is_draft(name) or aside) and not theirs:
                sizes[f"{layout.name_of(folder)}/{name}"] = one.size_bytes
    yield from many("here", "leftovers", sizes, "whoever wrote it has died")
