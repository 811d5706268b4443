"""The protocol of a store of folders, and the one that is a local folder."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from uni_moe.artifacts import whole_folder, write_text
from uni_moe.errors import LineageError, full_disk, is_full
from uni_moe.storage.sums import SUMS, check_sums, differing, read_sums, sums_of, sums_text

# one name, or two: no path that is absolute, hidden, or leads up, and no sign that a glob reads
_KEY = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)


class BlobStore(Protocol):
    """Keeps folders under keys such as `ab12/model`. A folder is there whole or not at all."""

    def put_folder(self, key: str, folder: Path, sums: Mapping[str, str] | None = None) -> None:
        """Keep a copy of a folder. A key is written once: the same key means the same content.

        `sums` maps each file that must arrive to its sha256; None takes what the folder holds.
        """

    def get_folder(self, key: str, target: Path) -> None:
        """Write what is kept under a key at `target`, every byte checked."""

    def has(self, key: str) -> bool:
        """Say whether a key is kept."""

    def keys(self, prefix: str = "") -> list[str]:
        """Return all keys that begin with a prefix, in order."""

    def sums(self, key: str) -> dict[str, str]:
        """Return the files kept under a key with their sha256."""

    def wrong(self, key: str) -> list[str]:
        """Read every byte kept under a key; return the files that are not what its sums say."""

    def forget(self, key: str) -> None:
        """Keep a key no more; its files stay until the next `put_folder` takes their place."""

    def erase(self, key: str) -> None:
        """Keep a key no more and remove its files; killed in between, a second time finishes."""


class LocalFolder:
    """A store that is a folder of this machine; a key is a path below it.

    Beside `ab12/model` lies `ab12/model.sha256`, which `sha256sum --check` reads from inside the
    folder. It is written first, so that a kept folder always has its sums.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, key: str) -> Path:
        """Return where a key lies on this machine, for those who only read.

        Raises:
            LineageError: it is no key, and may lead out of the store.
        """
        return self.root / checked_key(key)

    def put_folder(self, key: str, folder: Path, sums: Mapping[str, str] | None = None) -> None:
        """Copy a folder's files to their place and check every byte of the copy.

        What is kept already is checked and left. A copy that a killed process left is removed.

        Raises:
            LineageError: the key holds other content, or the folder is not what `sums` says.
            StoreError: the disk has no room.
        """
        sums = sums_of(folder) if sums is None else sums
        with self._writing(key) as target:
            if self.has(key):
                self._same(key, sums)
                return
            with whole_folder(target) as copy:
                _copy(folder, copy, sums)
                check_sums(sums_of(copy), sums, f"the copy of {folder}")
                write_text(_sums_file(target), sums_text(sums))

    def take(self, key: str, other: BlobStore) -> None:
        """Keep what another store keeps under a key; what is kept here already stays.

        Raises:
            LineageError: the other store keeps it not, or not as its sums say.
            StoreError: the other store cannot be reached, or the disk has no room.
        """
        with self._writing(key) as target:
            if not self.has(key):
                write_text(_sums_file(target), sums_text(other.sums(key)))
                other.get_folder(key, target)

    def get_folder(self, key: str, target: Path) -> None:
        """Copy a kept folder to `target`, whole or not at all.

        Raises:
            LineageError: the key is not kept, or what is kept was changed.
            StoreError: the disk has no room.
        """
        sums, place = self.sums(key), self.place(key)
        with room(target), whole_folder(target) as copy:
            _copy(place, copy, sums_of(place))
            check_sums(sums_of(copy), sums, self._named(key))

    def has(self, key: str) -> bool:
        """Say whether a key is kept."""
        return self.place(key).is_dir() and _sums_file(self.place(key)).is_file()

    def keys(self, prefix: str = "") -> list[str]:
        """Return all keys that begin with a prefix, in order."""
        found = (
            file.relative_to(self.root).as_posix().removesuffix(SUMS)
            for file in self.root.glob(f"**/*{SUMS}")
        )
        ours = (key for key in found if _KEY.fullmatch(key) and key.startswith(prefix))
        return sorted(key for key in ours if self.has(key))

    def sums(self, key: str) -> dict[str, str]:
        """Return the files kept under a key with their sha256.

        Raises:
            LineageError: the key is not kept, or its sums are broken.
        """
        if not self.has(key):
            raise not_kept(key, f"store at {self.root}")
        text = _sums_file(self.place(key)).read_text(encoding="utf-8")
        return read_sums(text, self._named(key))

    def wrong(self, key: str) -> list[str]:
        """Read every byte kept under a key; return the files that are not what its sums say."""
        return differing(sums_of(self.place(key)), self.sums(key))

    def forget(self, key: str) -> None:
        """Remove a key's sums, without which it is not kept; its files wait for the next put."""
        with self._writing(key) as target:
            _sums_file(target).unlink(missing_ok=True)

    def erase(self, key: str) -> None:
        """Remove a key's sums, then its files; killed in between, a second time finishes."""
        with self._writing(key) as target:
            _sums_file(target).unlink(missing_ok=True)
            if target.exists():
                shutil.rmtree(target)

    def _same(self, key: str, sums: Mapping[str, str]) -> None:
        if self.sums(key) != sums:
            raise other_content(key, f"compare it with {self.place(key)}")
        check_sums(sums_of(self.place(key)), sums, self._named(key))

    def _named(self, key: str) -> str:
        return f"{key} in the store at {self.root}"

    @contextmanager
    def _writing(self, key: str) -> Iterator[Path]:
        """Give a key's place to the one process that may write there; drafts of dead ones go."""
        target = self.place(key)
        with room(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with _turn(target.parent):
                _sweep(target)
                yield target


def checked_key(key: str) -> str:
    """Return a key that may be a path below a store.

    Raises:
        LineageError: it is none: a store that others write to may hold any name.
    """
    if _KEY.fullmatch(key):
        return key
    raise LineageError(
        f"{key!r} is no key of a store; nothing was written.",
        cause="a key is a name or two, such as ab12/model; somebody put this one there by hand.",
        remedy="remove what lies there under this name, and its .sha256 file.",
    )


def not_kept(key: str, store: str) -> LineageError:
    """Return the error of a key that a store does not keep."""
    return LineageError(
        f"The {store} keeps nothing under {key}.",
        cause="it was never registered here, or was removed.",
        remedy="look at what is there with `uni-moe models`.",
    )


def other_content(key: str, compare: str) -> LineageError:
    """Return the error of a key that holds something else than what should be kept."""
    return LineageError(
        f"The store keeps other content under {key}.",
        cause="two contents claim one identity, or the new one was changed by hand.",
        remedy=f"{compare}; remove the one that is wrong.",
    )


@contextmanager
def room(target: Path) -> Iterator[None]:
    """Tell a full disk from our own mistakes.

    Raises:
        StoreError: the disk has no room for the target.
    """
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise full_disk(f"There is no room for {target}.") from error


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Let one process at a time write in a folder; a dead one keeps nothing locked."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sweep(target: Path) -> None:
    """Remove drafts that killed processes left; whoever has the turn is the only one at work."""
    for draft in target.parent.glob(f".{target.name}.*"):
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink()


def _copy(folder: Path, target: Path, sums: Mapping[str, str]) -> None:
    for name in sums:
        if (folder / name).is_file():  # what is missing is told by the check of the copy
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)


def _sums_file(target: Path) -> Path:
    return target.with_name(target.name + SUMS)
