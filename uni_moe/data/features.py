"""The feature cache: what frozen encoders returned, kept on disk by the content of the medium.

Every encoder (its weights, its preparation, its machine: whatever changes bits) has a folder of its
own, with `about.json` and blocks. Any number of processes use it at once, without locks: a writer
gathers features and publishes them in a block of its own, whole, by one rename; a reader that
misses something looks for new blocks. What a killed process had not published is computed again,
and what two processes compute at once is kept twice: both are harmless.

Reads are positional, not mapped: as fast, and a block that somebody cuts short is an error that is
told instead of a signal that ends the process. One thread uses a cache at a time.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from uni_moe.artifacts import Layout, write_json
from uni_moe.data.blocks import (
    DRAFT,
    ENDING,
    Array,
    Place,
    read_array,
    read_places,
    write_block,
)
from uni_moe.errors import DataError, UniMoeError
from uni_moe.machine import FeatureCacheSettings
from uni_moe.records import canonical_json, sha256_text

ABOUT = "about.json"
BLOCK_BYTES = 64 * 2**20
KEY = 16  # letters of the hash in a folder's name
_PUBLISH_S, _PUBLISH_SHARE = 1.0, 0.02  # at most this share of a writer's life is lost with it
_DEAD_S = 3600.0  # a draft is written in one go, so the writer of an old one is dead
_SETTLED_NS = 100_000_000  # a younger folder may change again without a new time
Tell = Callable[[UniMoeError], None]  # hears what went wrong and stopped nothing


class FeatureCache:
    """The features of all encoders that a process uses, on one disk.

    Writing ends for good at the first sign that there is no room; reading goes on.
    """

    def __init__(self, root: Path, settings: FeatureCacheSettings, tell: Tell) -> None:
        self.root, self.settings, self.tell = root, settings, tell
        self.stopped = False
        self.written_bytes = 0

    def store(self, kind: str, about: Mapping[str, Any]) -> FeatureStore:
        """Return the store of one encoder; `about` is everything that changes its bits."""
        key = sha256_text(canonical_json(about))[:KEY]
        return FeatureStore(self, self.root / f"{kind}-{key}", about)

    def write(
        self, folder: Path, about: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Path | None:
        """Write a block and return its file; None where nothing is written any more."""
        if self.stopped:
            return None
        size_bytes = sum(len(array.data) for array in arrays.values())
        try:
            reason = self._no_room_for(size_bytes)
            if reason is None:
                if not (folder / ABOUT).is_file():
                    write_json(folder / ABOUT, about)
                file = write_block(folder, arrays)
                self.written_bytes += size_bytes
                return file
        except OSError as error:
            reason = error.strerror or str(error)
        self._stop(reason)
        return None

    def _no_room_for(self, size_bytes: int) -> str | None:
        self.root.mkdir(parents=True, exist_ok=True)
        disk, limit = shutil.disk_usage(self.root), self.settings.limit_bytes
        if disk.free - size_bytes < self.settings.spare_share * disk.total:
            share = self.settings.spare_share
            return f"{disk.free:,} bytes are free, and {share:.0%} of the disk stays spare"
        if limit is not None and size_of(self.root) + size_bytes > limit:
            return f"its limit is {limit:,} bytes"
        return None

    def _stop(self, reason: str) -> None:
        self.stopped = True
        self.tell(
            DataError(
                f"No more features are kept in {self.root}: {reason}.",
                cause="the disk is full or refuses to be written, or the cache may not grow; what "
                "it holds is whole, and what it lacks is computed whenever it is needed.",
                remedy="`uni-moe features` tells what takes how much, `--clear` frees it.",
            )
        )


class FeatureStore:
    """One encoder's features: read by content, gathered, published."""

    def __init__(self, cache: FeatureCache, folder: Path, about: Mapping[str, Any]) -> None:
        self.cache, self.folder, self.about = cache, folder, about
        self._places: dict[str, Place] = {}
        self._blocks: set[str] = set()  # names of blocks that were looked at
        self._listed_ns: int | None = None  # the folder's time when it was listed
        self._gathered: dict[str, Array] = {}
        self._gathered_bytes = 0
        self._born = self._published = time.monotonic()
        self._sweep()

    def get(self, content: str) -> Array | None:
        """Return a feature whose every byte is what was written, None where there is none.

        A spoiled one is told, taken out and looked for elsewhere.
        """
        self.tick()
        if content in self._gathered:
            return self._gathered[content]
        while (place := self._find(content)) is not None:
            try:
                found = read_array(place, content)
            except OSError as error:
                self._lose(place.file, error)
                continue
            if found is not None:
                return found
            self._mend(place.file, content)
        return None

    def put(self, content: str, array: Array) -> None:
        """Keep a feature from now on. Its bytes must not change any more."""
        if self.cache.stopped:
            return
        self._gathered[content] = array
        self._gathered_bytes += len(array.data)
        self.tick()

    def tick(self) -> None:
        """Publish what is gathered, if it is much or waits for long.

        The wait grows with the writer's age: a slow encoder leaves hundreds of blocks in a day.
        """
        if not self._gathered:
            return
        now = time.monotonic()
        patience_s = max(_PUBLISH_S, _PUBLISH_SHARE * (now - self._born))
        if self._gathered_bytes >= BLOCK_BYTES or now - self._published >= patience_s:
            self.publish()

    def gathers(self, content: str) -> bool:
        """Say whether this process has a feature that no other one sees yet."""
        return content in self._gathered

    def publish(self) -> None:
        """Let other processes see what is gathered."""
        if self._gathered:
            file = self.cache.write(self.folder, self.about, self._gathered)
            if file is not None:
                self._take_in(file)
        self._gathered, self._gathered_bytes = {}, 0
        self._published = time.monotonic()

    def _find(self, content: str) -> Place | None:
        if content not in self._places:
            self._list()
        return self._places.get(content)

    def _list(self) -> None:
        """Look at the blocks that came since the last time."""
        try:
            changed_ns = self.folder.stat().st_mtime_ns
            if changed_ns == self._listed_ns:
                return
            names = {path.name for path in self.folder.iterdir() if _is_block(path.name)}
        except OSError:  # nothing was published yet, or all was cleared
            return
        for name in sorted(names - self._blocks):
            self._take_in(self.folder / name)
        is_settled = time.time_ns() - changed_ns > _SETTLED_NS
        self._listed_ns = changed_ns if is_settled else None

    def _take_in(self, file: Path) -> None:
        self._blocks.add(file.name)
        try:
            self._places |= read_places(file)
        except ValueError as error:
            self.cache.tell(_spoiled(f"The block of features {file} cannot be read: {error}."))
            _remove(file)
        except OSError as error:
            self._lose(file, error)

    def _lose(self, file: Path, error: OSError) -> None:
        """Do without a block; one that is gone was cleared or mended by another process."""
        if not isinstance(error, FileNotFoundError):
            self.cache.tell(_spoiled(f"The block of features {file} cannot be read: {error}."))
        self._forget(file)

    def _forget(self, file: Path) -> None:
        self._places = {name: p for name, p in self._places.items() if p.file != file}

    def _mend(self, file: Path, content: str) -> None:
        """Put what is whole in a block into a new one, in the spoiled one's place."""
        self.cache.tell(_spoiled(f"The feature of {content} in {file} is not what was written."))
        self._places.pop(content)
        with suppress(OSError, ValueError):
            places = read_places(file)
            arrays = {name: read_array(place, name) for name, place in places.items()}
            whole = {name: array for name, array in arrays.items() if array is not None}
            if whole and self.cache.write(self.folder, self.about, whole) is None:
                return
        self._forget(file)
        _remove(file)

    def _sweep(self) -> None:
        """Remove the drafts of writers that died long ago."""
        with suppress(OSError):
            for draft in self.folder.glob(f"{DRAFT}*"):
                if time.time() - draft.stat().st_mtime > _DEAD_S:
                    _remove(draft)


def feature_folder(layout: Layout, settings: FeatureCacheSettings) -> Path:
    """Return the folder of a workspace's feature cache."""
    return layout.root / settings.folder if settings.folder else layout.state / "features"


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _is_block(name: str) -> bool:
    return name.endswith(ENDING) and not name.startswith(DRAFT)


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink()


def _spoiled(what: str) -> DataError:
    return DataError(
        what,
        cause="the disk spoiled it, or something wrote over it; it is not used.",
        remedy="nothing is lost: it is computed again. If this comes often, look after the disk.",
    )
