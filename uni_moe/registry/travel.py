"""What a workspace keeps for good, on its way to a remote store and back.

A run that has ended, or died when it had decided, is `runs/ID` there. A model is `MODEL/model`;
beside it are its reports (`report-ID`), the cards of its family (`cards-HASH`), DVC's lock that
names its data (`graph-ID-HASH`). Manifests and ledgers, which models share, are `seen/CARD`. The
audit log that tells of them is `audit/`: see `uni_moe.registry.travel_log`; what must not come back
is told by `tombstones/`.
Records are small and travel first, so that what a broken push leaves is known by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from uni_moe.artifacts import Layout, sha256_file, write_text
from uni_moe.audit_log import REGISTRATION, VERDICT, sound_log
from uni_moe.errors import LineageError
from uni_moe.records import sha256_text
from uni_moe.registry.cards import CARDS, all_runs
from uni_moe.registry.forgetting import obey
from uni_moe.registry.graphs import LOCK, graph_keys, keep_graph
from uni_moe.registry.parcels import Parcel, fetched_aside, give_up, is_thinned, is_wrong
from uni_moe.registry.read import Version
from uni_moe.registry.seen import SEEN, seen_by_these_alone
from uni_moe.registry.tombstones import (
    SHAPE,
    TOMBSTONES,
    Tombstone,
    covered,
    inscription,
    standing,
    tombstones_in,
)
from uni_moe.registry.travel_log import AUDIT, fetch_log, mend_log, part_to_send, send_part
from uni_moe.storage.blobs import BlobStore, LocalFolder
from uni_moe.storage.sums import sums_of, sums_text

Say = Callable[[str], None]
_RUNS, _MODEL = "runs/", "/model"
_ENDED = ("done", "failed")
_ID = r"[0-9a-f]{64}"
_SHAPES = re.compile(
    rf"runs/[\w-][\w.-]*|{_ID}/model|{_ID}/(report|{CARDS}|graph)-[0-9a-f]{{12}}(-[0-9a-f]{{12}})?"
    rf"|{AUDIT}[0-9]{{12}}-[0-9]{{12}}-{_ID}|{SEEN}/{_ID}|{SHAPE}",
    re.ASCII,
)


def parcels(layout: Layout, *, settled: bool) -> list[Parcel]:
    """Return what a workspace has to send: records and reports, then models, small ones first.

    `settled` says that dvc.lock describes what lies in artifacts/; only then it is kept and goes.
    """
    if settled:
        keep_graph(layout)
    found = [*_runs(layout), *_registered(layout), *_cards(layout)]
    return sorted(found, key=lambda one: (one.key.endswith(_MODEL), one.size_bytes, one.key))


def send(layout: Layout, store: BlobStore, say: Say, *, settled: bool, verify: bool = False) -> int:
    """Send what a store does not keep yet; return how many parcels went.

    With `verify` every byte there is read, and what is wrong is sent again. `settled` is as for
    `parcels`.

    Raises:
        LineageError: the store keeps other content under a key, ours was changed, or the audit log
            there is not the beginning of ours, nor ours of it; nothing is sent then.
        StoreError: the store cannot be reached, refuses, or is full.
    """
    log = part_to_send(layout, store)
    there, buried = bury(layout, store, say)
    ours = [one for one in parcels(layout, settled=settled) if _is_due(one.key, buried)]
    waiting = [one for one in ours if verify or one.key not in there]
    for number, one in enumerate(waiting, 1):
        word = "verifying" if one.key in there else "sending"
        say(f"{word} {number} of {len(waiting)}: {one.key} ({size_text(one.size_bytes)})")
        if one.key in there and is_wrong(store, one.key):
            say(f"  {one.key} is wrong in the store; it is sent again")
            give_up(store, one)
        elif one.key in there and is_thinned(store, one):
            continue
        store.put_folder(one.key, one.folder, one.sums)
    if verify:
        mend_log(layout, store, say)
    if log is not None:  # last: it tells of what is there by now
        send_part(layout, store, log)
    return len(waiting)


def fetch_records(layout: Layout, store: BlobStore, say: Say) -> int:
    """Fetch runs, cards, reports and the audit log that are not here; return how many folders came.

    Raises:
        LineageError: what the store keeps was changed, or is not ours; nothing comes then.
        StoreError: the store cannot be reached or refuses, or our disk has no room.
    """
    kept = store.keys()
    for key in kept:
        _check_shape(key)
    buried = standing(tombstones_in(kept), sound_log(layout).entries)
    records = [key for key in kept if not key.startswith(AUDIT) and not covered(key, buried)]
    keys = [key for key in records if not key.endswith(_MODEL)]
    came = sum(_fetched(layout, store, key) for key in keys)
    fetch_log(layout, store, say)
    obey(layout, tombstones_in(kept), say)
    say(f"records: {came} of {len(keys)} folders were new")
    return came


def fetch_model(layout: Layout, store: BlobStore, version: Version, say: Say) -> None:
    """Fetch a registered model.

    Raises:
        LineageError: it was removed for good, the store does not keep it, or what it keeps was
            changed.
        StoreError: the store cannot be reached or refuses, or our disk has no room.
    """
    key, local = f"{version.model}{_MODEL}", LocalFolder(layout.store)
    if not local.has(key):
        say(f"fetching version {version.number}: {key}")
        _check_not_buried(layout, store, version)
        local.take(key, store)


def is_buried(layout: Layout, store: BlobStore, model: str) -> Tombstone | None:
    """Return the tombstone that keeps a model's weights away, None where there is none.

    Raises:
        StoreError: the store cannot be reached or refuses.
    """
    stones = tombstones_in({*store.keys(TOMBSTONES), *LocalFolder(layout.store).keys(TOMBSTONES)})
    known = standing(stones, sound_log(layout).entries)
    return next((one for one in known if one.covers(f"{model}{_MODEL}")), None)


def bury(layout: Layout, store: BlobStore, say: Say) -> tuple[set[str], list[Tombstone]]:
    """Send our tombstones and remove what all that stand cover; return the keys left, and those.

    One that a later registration left behind goes.

    Raises:
        LineageError: the audit log is broken, or a tombstone was changed.
        StoreError: the store cannot be reached, refuses, or is full.
    """
    local, log = LocalFolder(layout.store), sound_log(layout).entries
    there, ours = set(store.keys()), tombstones_in(local.keys(TOMBSTONES))
    theirs = tombstones_in(there)
    stand = standing({*ours, *theirs}, log)
    for one in set(theirs) - set(stand):
        store.erase(one.key)
    for one in set(ours) & set(stand) - set(theirs):
        store.put_folder(one.key, local.place(one.key))
    gone = sorted(key for key in there if covered(key, stand))
    gone += seen_by_these_alone(store, there, gone)
    for key in gone:
        say(f"removing {key}: it was forgotten or retired")
        store.erase(key)
    left = there - set(gone) - {one.key for one in set(theirs) - set(stand)}
    return left | {one.key for one in stand}, stand


def fetch_lock(layout: Layout, store: BlobStore, version: Version, say: Say) -> None:
    """Fetch DVC's lock that names a model's data, where there is none here.

    Of several, the one that was made by the params that are here comes.

    Raises:
        LineageError: what the store keeps was changed.
        StoreError: the store cannot be reached or refuses, or our disk has no room.
    """
    graphs = fetch_graphs(layout, store, version)
    if (layout.root / LOCK).exists() or not graphs:
        return
    params = sha256_file(layout.params) if layout.params.is_file() else None
    same = [key for key in graphs if store.sums(key).get("params.yaml") == params]
    if not same:
        say("note: params.yaml here is not the one this model was made by; see `uni-moe plan`")
    with fetched_aside(layout, store, [*same, *graphs][0]) as folder:
        write_text(layout.root / LOCK, _text(folder / LOCK))
    say(f"{LOCK} is the one of version {version.number}")


def fetch_graphs(layout: Layout, store: BlobStore, version: Version) -> list[str]:
    """Fetch all that is kept of what a model was made by; return the keys, its last report's first.

    Raises:
        LineageError: what the store keeps was changed.
        StoreError: the store cannot be reached or refuses, or our disk has no room.
    """
    last = graph_keys(version.model, version.report)
    graphs = store.keys(graph_keys(version.model, ""))
    for key in graphs:
        LocalFolder(layout.store).take(key, store)
    return sorted(graphs, key=lambda key: not key.startswith(last))


def size_text(size_bytes: int) -> str:
    """Return a size in words."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes} bytes"


def _is_due(key: str, stand: Sequence[Tombstone]) -> bool:
    """Say whether a parcel may travel: no tombstone covers it, nor is it one left behind."""
    if key.startswith(TOMBSTONES):
        return any(key == one.key for one in stand)
    return not covered(key, stand)


def _check_not_buried(layout: Layout, store: BlobStore, version: Version) -> None:
    stone = is_buried(layout, store, version.model)
    if stone is not None:
        told = inscription(store, layout, stone)
        raise LineageError(
            f"Version {version.number} was {stone.kind}: its weights are gone for good.",
            cause=f"{told['who']} removed them at {told['at'][:16]}: {told['why']}.",
            remedy="take another version; this one comes back only by training it again.",
        )


def _check_shape(key: str) -> None:
    """Refuse what we never send: a key becomes a path, and anybody may write to a store."""
    if not _SHAPES.fullmatch(key):
        raise LineageError(
            f"The store keeps {key!r}, which is nothing of ours; nothing was fetched.",
            cause="somebody put it there by hand, or a later version did.",
            remedy="remove it there with its .sha256 file, or fetch with the version that sent it.",
        )


def _runs(layout: Layout) -> Iterator[Parcel]:
    for folder, record in all_runs(layout):
        decided = any((folder / name).is_file() for name in (REGISTRATION, VERDICT))
        if record["status"] in _ENDED or (record["status"] == "died" and decided):
            yield Parcel(f"{_RUNS}{folder.name}", folder, None, _size(folder))


def _registered(layout: Layout) -> Iterator[Parcel]:
    local = LocalFolder(layout.store)
    kept = local.keys()
    for key in kept:
        yield Parcel(key, local.place(key), local.sums(key), _size(local.place(key)))


def _cards(layout: Layout) -> Iterator[Parcel]:
    for folder in sorted(layout.store.glob(f"*/{CARDS}")):
        sums = sums_of(folder)
        name = sha256_text(sums_text(sums))[:12]
        yield Parcel(f"{folder.parent.name}/{CARDS}-{name}", folder, sums, _size(folder))


def _fetched(layout: Layout, store: BlobStore, key: str) -> bool:
    """Bring one folder of records to its place; say whether it was new."""
    if key.startswith(_RUNS):
        return _fetched_run(layout, store, key)
    model, _, name = key.partition("/")
    if name.startswith(f"{CARDS}-"):
        return _fetched_cards(layout.store / model / CARDS, layout, store, key)
    local = LocalFolder(layout.store)
    if local.has(key):
        return False
    local.take(key, store)
    return True


def _fetched_run(layout: Layout, store: BlobStore, key: str) -> bool:
    target = layout.runs / key.removeprefix(_RUNS)
    if target.exists():
        return False
    store.get_folder(key, target)
    return True


def _fetched_cards(target: Path, layout: Layout, store: BlobStore, key: str) -> bool:
    wanted = store.sums(key)
    have = {name: sha256_file(target / name) for name in wanted if (target / name).is_file()}
    if have == wanted:
        return False
    with fetched_aside(layout, store, key) as folder:
        for name in wanted:
            write_text(target / name, _text(folder / name))
    return True


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
