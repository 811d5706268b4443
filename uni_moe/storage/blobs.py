"""The protocol of a store of folders, and the one that is a local folder."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from uni_moe.artifacts import sha256_file, whole_folder, write_text
from uni_moe.errors import LineageError

_SUMS = ".sha256"


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


class LocalFolder:
    """A store that is a folder of this machine; a key is a path below it.

    Beside `ab12/model` lies `ab12/model.sha256`, which `sha256sum --check` reads from inside the
    folder. It is written first, so that a kept folder always has its sums.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, key: str) -> Path:
        """Return where a key lies on this machine, for those who only read."""
        return self.root / key

    def put_folder(self, key: str, folder: Path, sums: Mapping[str, str] | None = None) -> None:
        """Copy a folder's files to their place and check every byte of the copy.

        What is kept already is checked and left. A copy that a killed process left is removed.

        Raises:
            LineageError: the key holds other content, or the folder is not what `sums` says.
        """
        target = self.place(key)
        sums = _sums_of(folder) if sums is None else sums
        target.parent.mkdir(parents=True, exist_ok=True)
        with _turn(target.parent):
            if self.has(key):
                self._same(key, sums)
                return
            _sweep(target)
            with whole_folder(target) as copy:
                _copy(folder, copy, sums)
                _check(copy, sums, f"the copy of {folder}")
                write_text(_sums_file(target), _sums_text(sums))

    def get_folder(self, key: str, target: Path) -> None:
        """Copy a kept folder to `target`, whole or not at all.

        Raises:
            LineageError: the key is not kept, or what is kept was changed.
        """
        sums, place = self._sums(key), self.place(key)
        with whole_folder(target) as copy:
            _copy(place, copy, _sums_of(place))
            _check(copy, sums, f"{key} in the store at {self.root}")

    def has(self, key: str) -> bool:
        """Say whether a key is kept."""
        return self.place(key).is_dir() and _sums_file(self.place(key)).is_file()

    def keys(self, prefix: str = "") -> list[str]:
        """Return all keys that begin with a prefix, in order."""
        found = (
            file.relative_to(self.root).as_posix().removesuffix(_SUMS)
            for file in self.root.glob(f"**/*{_SUMS}")
        )
        return sorted(key for key in found if key.startswith(prefix) and self.has(key))

    def _same(self, key: str, sums: Mapping[str, str]) -> None:
        if self._sums(key) != sums:
            raise LineageError(
                f"The store keeps other content under {key}.",
                cause="two contents claim one identity, or the new one was changed by hand.",
                remedy=f"compare it with {self.place(key)}; remove the one that is wrong.",
            )
        _check(self.place(key), sums, f"{key} in the store at {self.root}")

    def _sums(self, key: str) -> dict[str, str]:
        if not self.has(key):
            raise LineageError(
                f"The store at {self.root} keeps nothing under {key}.",
                cause="it was never registered here, or was removed.",
                remedy="look at what is there with `uni-moe models`.",
            )
        lines = _sums_file(self.place(key)).read_text(encoding="utf-8").splitlines()
        return {name: sha256 for sha256, name in (line.split("  ", 1) for line in lines)}


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


def _sums_of(folder: Path) -> dict[str, str]:
    """Return every file of a folder with its sha256, the card included."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _check(folder: Path, sums: Mapping[str, str], what: str) -> None:
    found = _sums_of(folder)
    wrong = sorted(name for name in {*found, *sums} if found.get(name) != sums.get(name))
    if wrong:
        raise LineageError(
            f"{what} is not what its sums say: {', '.join(wrong[:5])}.",
            cause="files were changed, added or removed since, or the disk is failing.",
            remedy="if it is in the store, remove it there with its .sha256 file; then register "
            "the model again.",
        )


def _sums_text(sums: Mapping[str, str]) -> str:
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def _sums_file(target: Path) -> Path:
    return target.with_name(target.name + _SUMS)
