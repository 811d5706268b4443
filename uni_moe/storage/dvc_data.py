"""Holds the objects that DVC keeps in a remote to their names, which are hashes of their bytes.

DVC never sends again what a remote has by name, nor looks for a folder's files where the folder's
list is there. So what was spoilt or lost stays so until it and the lists that name it are removed,
which is done only where the bytes to send again are at hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from uni_moe.storage.dvc_names import (
    FILES,
    LIST,
    is_object,
    named_in,
    object_of,
    place_of,
    said_by,
)
from uni_moe.storage.objects import Files, Objects
from uni_moe.storage.remote import DATA, Remote, objects_of


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
    return objects_of(root, remote, DATA)


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
        name = object_of(root)
        needed.add(name)
        if root.endswith(LIST):
            text = cache.content(place_of(root))
            if text is None and name in there:
                text = store.content(name)
            needed |= {object_of(md5) for md5 in named_in(text)}
    return sorted(needed - there)


def _wrong(store: Objects, suspects: set[str]) -> set[str]:
    """Return which objects are not what their names say, or name one that is absent or so."""
    names = _objects(store)
    wrong = {name for name in suspects & names if store.md5(name) not in (None, said_by(name))}
    there = {said_by(name) for name in names - wrong}
    lists = (name for name in suspects & names - wrong if name.endswith(LIST))
    return wrong | {name for name in lists if not named_in(store.content(name)) <= there}


def _sendable(kept: Kept) -> set[str]:
    """Return the objects of every root that the cache holds whole."""
    cache, found, known = Files(kept.cache), set[str](), dict[str, bool]()
    for root in kept.roots:
        family = {root}
        if root.endswith(LIST):
            family |= named_in(cache.content(place_of(root)))
        for one in family - known.keys():
            known[one] = cache.md5(place_of(one)) == one.removesuffix(LIST)
        if all(known[one] for one in family):
            found |= {object_of(one) for one in family}
    return found


def _objects(store: Objects) -> set[str]:
    """Return DVC's objects; what another machine is just sending has a name of another form."""
    return {name for name in store.objects(FILES) if is_object(name)}
