"""A folder on its way to a store or back: what is sent, given up, or looked into."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uni_moe.artifacts import Layout, sha256_file
from uni_moe.errors import LineageError
from uni_moe.storage.blobs import BlobStore, other_content
from uni_moe.storage.sums import check_sums, sums_of

REMOVED = "removed.json"  # in a run's folder: a receipt of what housekeeping took out of it


@dataclass(frozen=True)
class Parcel:
    """A folder that travels under a key."""

    key: str
    folder: Path
    sums: Mapping[str, str] | None  # None: all that the folder holds
    size_bytes: int


def is_wrong(store: BlobStore, key: str) -> bool:
    """Say whether what is kept under a key lost what its sums say, or its sums."""
    try:
        return bool(store.wrong(key))
    except LineageError:
        return True


def is_thinned(store: BlobStore, one: Parcel) -> bool:
    """Say whether a run that a store keeps has less or more than ours, as a receipt tells."""
    return (one.folder / REMOVED).is_file() or REMOVED in store.sums(one.key)


def give_up(store: BlobStore, one: Parcel) -> None:
    """Let a store keep a parcel no more, once ours is known to be whole and the same.

    Raises:
        LineageError: ours is not what its sums say, or other content is kept there.
    """
    sums = sums_of(one.folder) if one.sums is None else one.sums
    files = [name for name in sums if (one.folder / name).is_file()]
    ours = {name: sha256_file(one.folder / name) for name in files}
    check_sums(ours, sums, str(one.folder), "bring it back from a copy; the store was not touched.")
    try:
        kept = store.sums(one.key)
    except LineageError:
        kept = dict(sums)  # they are what is wrong
    if kept != sums and not {*sums, *kept} & {REMOVED}:
        raise other_content(one.key, f"compare it with {one.folder}")
    store.forget(one.key)


@contextmanager
def fetched_aside(layout: Layout, store: BlobStore, key: str) -> Iterator[Path]:
    """Give a copy of what a store keeps under a key, to look into.

    Raises:
        LineageError: the store does not keep it, or what it keeps was changed.
        StoreError: the store cannot be reached or refuses, or our disk has no room.
    """
    layout.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.state, prefix="fetched-") as folder:
        store.get_folder(key, Path(folder) / "it")
        yield Path(folder) / "it"
