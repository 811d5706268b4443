"""Holds the objects that DVC keeps in a remote to their names, which are hashes of their bytes.

DVC never sends again what a remote has by name, nor looks for a folder's files where the folder's
list is there. So what was spoilt or lost stays so until it and the lists that name it are removed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Protocol

from uni_moe.storage.remote import DATA, Remote, credentials_of

_FILES, _LIST = "files/md5/", ".dir"


class Objects(Protocol):
    """Objects by name."""

    def objects(self, prefix: str = "") -> list[str]:
        """Return the names that begin with a prefix."""

    def md5(self, name: str) -> str | None:
        """Read an object; return the md5 of its bytes, None where it is absent."""

    def content(self, name: str) -> bytes | None:
        """Return an object's bytes, None where it is absent."""

    def remove(self, name: str) -> None:
        """Remove an object."""


class _Files:
    """Objects that are files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def objects(self, prefix: str = "") -> list[str]:
        files = (path for path in self.folder.rglob("*") if path.is_file())
        names = (path.relative_to(self.folder).as_posix() for path in files)
        return sorted(name for name in names if name.startswith(prefix))

    def md5(self, name: str) -> str | None:
        with (self.folder / name).open("rb") as stream:
            return hashlib.file_digest(stream, _md5).hexdigest()

    def content(self, name: str) -> bytes | None:
        return (self.folder / name).read_bytes()

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()


def remove_spoilt(root: Path, remote: Remote) -> list[str]:
    """Read every object of DVC's; remove what DVC must send again; return the names.

    Raises:
        StoreError: the remote cannot be reached or refuses.
    """
    if not remote.is_s3:
        return removed(_Files(Path(remote.url) / DATA))
    from uni_moe.storage.s3 import S3Bucket

    return removed(S3Bucket(remote, credentials_of(root), DATA))


def removed(store: Objects) -> list[str]:
    """Remove objects that are not what their names say, and lists that name an absent object."""
    names = store.objects(_FILES)
    spoilt = [name for name in names if store.md5(name) != _said(name)]
    whole = [name for name in names if name not in set(spoilt)]
    there = {_said(name) for name in whole}
    lists = [name for name in whole if name.endswith(_LIST)]
    spoilt += [name for name in lists if not _named(store.content(name)) <= there]
    for name in spoilt:
        store.remove(name)
    return spoilt


def _named(text: bytes | None) -> set[str]:
    """Return the md5 of every file that a folder's list names."""
    return {entry["md5"] for entry in json.loads(text or b"[]")}


def _said(name: str) -> str:
    """Return the md5 that an object's name says."""
    return name.removeprefix(_FILES).removesuffix(_LIST).replace("/", "")


def _md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)
