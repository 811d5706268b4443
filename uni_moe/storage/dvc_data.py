"""Holds the objects that DVC keeps in a remote to their names, which are hashes of their bytes.

DVC never sends again what a remote has by name, nor looks for a folder's files where the folder's
list is there. So what was spoilt or lost stays so until it and the lists that name it are removed,
which is done only where the bytes to send again are at hand.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from uni_moe.storage.remote import DATA, Remote, credentials_of

_FILES, _LIST = "files/md5/", ".dir"
_OBJECT = re.compile(rf"{_FILES}[0-9a-f]{{2}}/[0-9a-f]{{30}}(\{_LIST})?")


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


class Files:
    """Objects that are files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def objects(self, prefix: str = "") -> list[str]:
        """Return the names that begin with a prefix."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        names = (path.relative_to(self.folder).as_posix() for path in files)
        return sorted(name for name in names if name.startswith(prefix))

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

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Kept:
    """What a workspace can send: the data that its lock names, and the folder of DVC's cache."""

    roots: frozenset[str]  # the md5 of a file, or of a folder's list with .dir behind it
    cache: Path  # holds ab/cdef… of every md5


@dataclass(frozen=True)
class Spoilt:
    """Objects that are wrong: those that were removed to be sent again, and those that stay."""

    removed: tuple[str, ...]
    left: tuple[str, ...]


def data_of(root: Path, remote: Remote) -> Objects:
    """Return the objects of DVC's part of a remote.

    Raises:
        StoreError: it is a bucket, and there are no credentials.
    """
    if not remote.is_s3:
        return Files(Path(remote.url) / DATA)
    from uni_moe.storage.s3 import S3Bucket

    return S3Bucket(remote, credentials_of(root), DATA)


def remove_spoilt(store: Objects, kept: Kept) -> Spoilt:
    """Read every object of DVC's; remove what is wrong and will be sent again by `dvc push`.

    Wrong is an object that is not what its name says, and a list that names an absent or a wrong
    one. Only what a root that the cache holds whole is made of is removed: the rest may be all
    that is left of another version.

    Raises:
        StoreError: the remote cannot be reached or refuses.
    """
    wrong = _wrong(store, _objects(store))
    again = wrong & _sendable(kept) if wrong else set()
    for name in sorted(again):
        store.remove(name)
    return Spoilt(tuple(sorted(again)), tuple(sorted(wrong - again)))


def still_wrong(store: Objects, left: Iterable[str]) -> list[str]:
    """Return which of the objects that were wrong are so after a push: lists may be whole again.

    Raises:
        StoreError: the remote cannot be reached or refuses.
    """
    return sorted(_wrong(store, set(left)))


def absent(store: Objects, kept: Kept) -> list[str]:
    """Return the objects that the lock names and a remote does not hold, by one listing.

    Raises:
        StoreError: the remote cannot be reached or refuses.
    """
    cache, there = Files(kept.cache), _objects(store)
    needed: set[str] = set()
    for root in kept.roots:
        name = _object(root)
        needed.add(name)
        if root.endswith(_LIST):
            text = cache.content(_place(root))
            if text is None and name in there:
                text = store.content(name)
            needed |= {_object(md5) for md5 in _named(text)}
    return sorted(needed - there)


def _wrong(store: Objects, suspects: set[str]) -> set[str]:
    """Return which objects are not what their names say, or name one that is absent or so."""
    names = _objects(store)
    wrong = {name for name in suspects & names if store.md5(name) not in (None, _said(name))}
    there = {_said(name) for name in names - wrong}
    lists = (name for name in suspects & names - wrong if name.endswith(_LIST))
    return wrong | {name for name in lists if not _named(store.content(name)) <= there}


def _sendable(kept: Kept) -> set[str]:
    """Return the objects of every root that the cache holds whole."""
    cache, found, known = Files(kept.cache), set[str](), dict[str, bool]()
    for root in kept.roots:
        family = {root}
        if root.endswith(_LIST):
            family |= _named(cache.content(_place(root)))
        for one in family - known.keys():
            known[one] = cache.md5(_place(one)) == one.removesuffix(_LIST)
        if all(known[one] for one in family):
            found |= {_object(one) for one in family}
    return found


def _objects(store: Objects) -> set[str]:
    """Return DVC's objects; what another machine is just sending has a name of another form."""
    return {name for name in store.objects(_FILES) if _OBJECT.fullmatch(name)}


def _named(text: bytes | None) -> set[str]:
    """Return the md5 of every file that a folder's list names; a broken list names none."""
    try:
        return {entry["md5"] for entry in json.loads(text or b"[]")}
    except (ValueError, TypeError, KeyError):
        return set()


def _place(md5: str) -> str:
    return f"{md5[:2]}/{md5[2:]}"


def _object(md5: str) -> str:
    return _FILES + _place(md5)


def _said(name: str) -> str:
    """Return the md5 that an object's name says."""
    return name.removeprefix(_FILES).removesuffix(_LIST).replace("/", "")


def _md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)
