"""Names in a store of ours, sorted into what is reachable and what is not. Pure.

A store is a folder or a part of a bucket; both have the same names. A key is kept where its sums
are; all below it is its own. What belongs to no key was left by somebody who died, but for the
few files that the workspace's own store has beside its keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass

from uni_moe.registry.cards import CARDS
from uni_moe.registry.seen import SEEN
from uni_moe.registry.tombstones import TOMBSTONES
from uni_moe.storage.sums import SUMS

_OWN = re.compile(rf"audit\.jsonl|\.lock|\.workspace|[0-9a-f]{{64}}/{CARDS}/.+")
_DRAFT = re.compile(r"(^|/)\.[^/]+\.[0-9a-f]{32}(/|$)")  # as `whole_folder`, `whole_file` name them
_MODEL = re.compile(r"[0-9a-f]{64}")
_PARTS = 2  # a key is a name or two
_RECORDS = ("runs", "audit", SEEN, TOMBSTONES.rstrip("/"))


@dataclass(frozen=True)
class Sorted:
    """Names with their bytes: those of each key that goes, and those that belong to no key."""

    keys: Mapping[str, Mapping[str, int]]
    strays: Mapping[str, int]


def sort_names(
    names: Mapping[str, int], goes: Callable[[str], bool], ours: Container[str] = ()
) -> Sorted:
    """Return what of a store's names goes.

    Args:
        names: every name in the store with its bytes.
        goes: says of a key whether it is to go.
        ours: names that stay, whatever they look like.
    """
    keys = keys_of(names)
    gone: dict[str, dict[str, int]] = {key: {} for key in sorted(keys) if goes(key)}
    strays = {}
    for name in sorted(names):
        key = _key_of(name, keys)
        if key in gone:
            gone[key][name] = names[name]
        elif key is None and name not in ours and is_stray(name):
            strays[name] = names[name]
    return Sorted(gone, strays)


def keys_of(names: Iterable[str]) -> set[str]:
    """Return the keys whose sums are among names; a file of a kept folder may end like sums."""
    found: set[str] = set()
    for name in sorted(names, key=lambda name: (name.count("/"), name)):
        key = name.removesuffix(SUMS)
        inside = is_draft(name) or any(above in found for above in _above(name))
        if name.endswith(SUMS) and name.count("/") < _PARTS and not inside and not _is_own(name):
            found.add(key)
    return found


def model_of(key: str) -> str | None:
    """Return the model that a key belongs to, None of records."""
    first, _, rest = key.partition("/")
    return first if rest and _MODEL.fullmatch(first) else None


def is_draft(name: str) -> bool:
    """Say whether a name is, or lies in, what was being written when its writer died."""
    return _DRAFT.search(name) is not None


def is_stray(name: str) -> bool:
    """Say whether a name that no key holds was left by somebody who died: it is of our making."""
    first, _, rest = name.partition("/")
    if is_draft(name):
        return True
    made_here = bool(_MODEL.fullmatch(first)) or first in _RECORDS
    return bool(rest) and made_here and not _is_own(name)


def _is_own(name: str) -> bool:
    return _OWN.fullmatch(name) is not None and not is_draft(name)


def _key_of(name: str, keys: Container[str]) -> str | None:
    if name.endswith(SUMS) and name.removesuffix(SUMS) in keys:
        return name.removesuffix(SUMS)
    return next((above for above in _above(name) if above in keys), None)


def _above(name: str) -> Iterable[str]:
    """Give the folders that a name lies in, the outermost first."""
    parts = name.split("/")
    return ("/".join(parts[:depth]) for depth in range(1, len(parts)))
