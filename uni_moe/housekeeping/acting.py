"""Does what a plan of housekeeping says. Killed anywhere, a second time finishes.

The audit log is told of weights before they go; sums go before what they vouch for, lists before
what they name, so that nothing half is ever taken for whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from uni_moe.artifacts import Layout
from uni_moe.audit import FORGOTTEN, Asked, Telling
from uni_moe.audit_log import append, sound_log
from uni_moe.housekeeping.plan import Going
from uni_moe.housekeeping.thinning import thin
from uni_moe.registry.decisions import turn_at_work
from uni_moe.registry.removals import RETIREMENT
from uni_moe.registry.tombstones import raise_tombstone, tombstone_of
from uni_moe.registry.travel import bury
from uni_moe.registry.travel_log import part_to_send, send_part
from uni_moe.storage.blobs import BlobStore, LocalFolder
from uni_moe.storage.objects import Files, Objects


def act_here(layout: Layout, goes: Iterable[Going], cache: Path, asked: Asked) -> None:
    """Remove from a workspace what a plan says.

    Args:
        layout: the workspace, in which no stage runs.
        goes: what of it goes.
        cache: the folder of DVC's cache that holds `files` and `runs`.
        asked: who asks, and why; kept in the audit log.

    Raises:
        LineageError: the audit log is broken; the weights of retired versions stay.
        OSError: the disk refuses.
    """
    store = LocalFolder(layout.store)
    for one in goes:
        if one.kind in ("weights", "store"):
            for key in one.paths:
                if one.kind == "weights":
                    _tell(layout, key, asked, everywhere=False)
                store.erase(key)
        elif one.kind == "data":
            _remove_objects(Files(cache), one.paths)
        elif one.kind == "runs":
            for folder in sorted({(layout.root / path).parent for path in one.paths}):
                thin(folder, asked)
        else:
            for path in one.paths:
                _remove(layout.root, path)


def act_there(
    layout: Layout, goes: Iterable[Going], remote: tuple[BlobStore, Objects, Objects], asked: Asked
) -> None:
    """Remove from a remote what a plan says; tombstones keep it away.

    Args:
        layout: the workspace, with all records of the remote.
        goes: what of the remote goes.
        remote: our store there, its objects, and DVC's objects.
        asked: who asks, and why; kept in the audit log.

    Raises:
        LineageError: the audit log is broken; the weights of retired versions stay.
        StoreError: the remote cannot be reached or refuses; the next time goes on from there.
    """
    store, ours, dvc = remote
    going = list(goes)
    for key in (key for one in going if one.kind == "weights" for key in one.paths):
        _tell(layout, key, asked, everywhere=True)
    log = part_to_send(layout, store)
    bury(layout, store, _silent)
    for one in going:
        if one.kind == "store":
            for key in one.paths:
                store.erase(key)
        elif one.kind == "data":
            _remove_objects(dvc, one.paths)
        elif one.kind == "runs":
            _thin_there(layout, store, ours, one.paths)
        elif one.kind == "leftovers":
            _remove_objects(ours, one.paths)
    if log is not None:
        send_part(layout, store, log)


def _tell(layout: Layout, key: str, asked: Asked, *, everywhere: bool) -> None:
    """Tell the log that a version's weights go, and raise a tombstone where they go everywhere.

    A gc that died between its word and its deed has told it before.
    """
    model = key.partition("/")[0]
    evidence = {FORGOTTEN: f"{layout.name_of(layout.store)}/{key}", "remote": everywhere}
    with turn_at_work(layout):
        own = [entry for entry in sound_log(layout).entries if entry.subject == model]
        last = own[-1] if own else None
        if last is None or last.event != RETIREMENT or last.evidence["remote"] < everywhere:
            last = append(layout, Telling(RETIREMENT, asked.who, asked.why, model, evidence))
        if everywhere:
            raise_tombstone(layout, tombstone_of("retired", model, last), last)


def _thin_there(layout: Layout, store: BlobStore, ours: Objects, names: Iterable[str]) -> None:
    """Send runs as they are here in the place of what a remote keeps of them."""
    by_run: dict[str, list[str]] = {}
    for name in names:
        by_run.setdefault(name.rpartition("/")[0], []).append(name)
    for key, files in by_run.items():
        store.forget(key)
        store.put_folder(key, layout.root / key)
        _remove_objects(ours, files)


def _remove_objects(objects: Objects, names: Iterable[str]) -> None:
    for name in names:
        objects.remove(name)


def _remove(root: Path, path: str) -> None:
    """Remove a file or a folder, and the folders that are empty by then."""
    target = root / path
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    above = target.parent
    while above.parent != root and above.is_dir() and not any(above.iterdir()):
        above.rmdir()
        above = above.parent


def _silent(_line: str) -> None:
    """Say nothing: the plan has said it."""
