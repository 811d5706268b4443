"""Objects by name: files of a folder, or of a bucket below a prefix, whoever put them there."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from uni_moe.artifacts import whole_file
from uni_moe.storage.blobs import room


@dataclass(frozen=True)
class Stored:
    """How large an object is, and when it was written by the clock of whoever keeps it."""

    size_bytes: int
    at_s: float


class Objects(Protocol):
    """Objects by name."""

    def objects(self, prefix: str = "") -> list[str]:
        """Return the names that begin with a prefix, in order."""

    def listed(self, prefix: str = "") -> dict[str, Stored]:
        """Return the same with what is known of each."""

    def md5(self, name: str) -> str | None:
        """Read an object; return the md5 of its bytes, None where it is absent."""

    def content(self, name: str) -> bytes | None:
        """Return an object's bytes, None where it is absent."""

    def put(self, name: str, data: bytes) -> None:
        """Write an object, whole or not at all."""

    def send(self, name: str, file: Path) -> None:
        """Write a file's bytes as an object, whole or not at all."""

    def remove(self, name: str) -> None:
        """Remove an object; one that is absent is no trouble."""


class Files:
    """Objects that are files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def objects(self, prefix: str = "") -> list[str]:
        """Return the names that begin with a prefix, in order."""
        return sorted(name for name, _ in self._walk(prefix))

    def listed(self, prefix: str = "") -> dict[str, Stored]:
        """Return the same with what is known of each; what vanishes meanwhile is left out."""
        found = {}
        for name, entry in self._walk(prefix):
            try:
                about = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            found[name] = Stored(about.st_size, about.st_mtime)
        return found

    def md5(self, name: str) -> str | None:
        """Read a file; return the md5 of its bytes, None where it is absent."""
        try:
            with (self.folder / name).open("rb") as stream:
                return hashlib.file_digest(stream, _md5).hexdigest()
        except FileNotFoundError:
            return None

    def content(self, name: str) -> bytes | None:
        """Return a file's bytes, None where it is absent."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        with whole_file(self.folder / name) as draft:
            draft.write_bytes(data)

    def send(self, name: str, file: Path) -> None:
        """Copy a file, whole or not at all.

        Raises:
            StoreError: the disk has no room.
        """
        with room(self.folder / name), whole_file(self.folder / name) as draft:
            shutil.copyfile(file, draft)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.folder / name).unlink(missing_ok=True)

    def _walk(self, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Give the files below, from the deepest folder on that the prefix names."""
        inside, _, _ = prefix.rpartition("/")
        waiting = [(self.folder / inside, f"{inside}/" if inside else "")]
        while waiting:
            folder, above = waiting.pop()
            try:
                entries = list(os.scandir(folder))
            except (FileNotFoundError, NotADirectoryError):
                continue
            for entry in entries:
                name = above + entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((Path(entry.path), f"{name}/"))
                elif name.startswith(prefix) and entry.is_file(follow_symlinks=False):
                    yield name, entry


def _md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)
