"""Holds the objects that DVC keeps in a remote to their names, which are hashes of their bytes.

DVC never sends again what a remote has by name, nor looks for a folder's files where the folder's
list is there. So what was spoilt or lost stays so until it and the lists that name it are removed,
which is done only where the bytes to send again are at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from uni_moe.storage.dvc_names import (
    FILES,
    LIST,
    is_object,
    named_in,
    object_of,
    place_of,
    root_of,
    said_by,
)
from uni_moe.storage.objects import Files, Objects
from uni_moe.storage.remote import DATA, Remote, objects_of


@dataclass(frozen=True)
class Kept:
    """What a workspace can send: the data that locks name, and the folder of DVC's cache."""

    roots: frozenset[str]  # the md5 of a file, or of a folder's list with .dir behind it
    cache: Path  # holds ab/cdef… of every md5


@dataclass(frozen=True)
class Spoilt:
    """Objects that are wrong: those that were removed to be sent again, and those that stay."""

    removed: tuple[str, ...]
    left: tuple[str, ...]


@dataclass(frozen=True)
class Arrived:
    """What became of a push: objects that we sent, and those that came back with other bytes.

    The latter were removed with the lists that name them, so that the next push sends them again.
    `lacking` are the roots that are not whole there, each with the objects of it that are neither
    there nor whole in the cache.
    """

    sent: tuple[str, ...]
    wrong: tuple[str, ...]
    lacking: Mapping[str, tuple[str, ...]]


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
    wrong = _wrong(store, names_in(store))
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
    """Return the objects that locks name and a remote does not hold, by one listing.

    Raises:
        StoreError: the remote cannot be reached or refuses.
    """
    there = names_in(store)

    def read(name: str) -> bytes | None:
        return store.content(name) if name in there else None

    return sorted(set().union(*_made_of(kept, read).values()) - there)


def send_rest(store: Objects, kept: Kept, before: set[str]) -> Arrived:
    """Send what a remote lacks of roots after DVC's own push; read back all that came.

    Files go before lists, and no list goes whose files are not all there: DVC takes a folder for
    whole where its list is. What came as other bytes is removed, lists first: nobody would look at
    it again. Of a folder whose list is there and not in the cache nothing is asked:
    other machines made most of a team's versions, and `absent` looks at all.

    Args:
        store: DVC's part of the remote.
        kept: what is to be there, and the cache that it is sent from.
        before: the objects that were there before DVC's own push.

    Raises:
        StoreError: the remote cannot be reached, refuses, or is full.
    """
    there = names_in(store)
    made_of = _made_of(kept)
    needed, sent = set().union(*made_of.values()), []
    for name in sorted(needed - there, key=lambda name: (name.endswith(LIST), name)):
        files = made_of.get(root_of(name), set()) - {name}
        if files <= there and _sent(store, kept.cache, name):
            there.add(name)
            sent.append(name)
    back = {name: store.md5(name) for name in sorted((needed & there) - before)}
    there -= {name for name, md5 in back.items() if md5 is None}
    wrong = {name for name, md5 in back.items() if md5 not in (None, said_by(name))}
    naming = {object_of(root) for root, own in made_of.items() if own & wrong}
    for name in sorted(wrong | naming, key=lambda name: (not name.endswith(LIST), name)):
        store.remove(name)
    return Arrived(
        tuple(sent),
        tuple(sorted(wrong)),
        {root: tuple(sorted(own - there)) for root, own in made_of.items() if not own <= there},
    )


def names_in(store: Objects) -> set[str]:
    """Return DVC's objects; what another machine is just sending has a name of another form.

    Raises:
        StoreError: the remote cannot be reached or refuses.
    """
    return {name for name in store.objects(FILES) if is_object(name)}


def _made_of(
    kept: Kept, read: Callable[[str], bytes | None] = lambda _: None
) -> dict[str, set[str]]:
    """Return root -> the objects that it is made of, as far as the cache has its list.

    `read` gives a list that the cache has not; who only sends needs none of those.
    """
    cache, found = Files(kept.cache), dict[str, set[str]]()
    for root in kept.roots:
        name = object_of(root)
        found[root] = {name}
        if root.endswith(LIST):
            text = cache.content(place_of(root))
            text = read(name) if text is None else text
            found[root] |= {object_of(md5) for md5 in named_in(text)}
    return found


def _sent(store: Objects, cache: Path, name: str) -> bool:
    """Send an object from the cache; say whether it is whole there."""
    place = place_of(root_of(name))
    if Files(cache).md5(place) != said_by(name):
        return False
    store.send(name, cache / place)
    return True


def _wrong(store: Objects, suspects: set[str]) -> set[str]:
    """Return which objects are not what their names say, or name one that is absent or so."""
    names = names_in(store)
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
