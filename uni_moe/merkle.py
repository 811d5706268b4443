"""A hash tree over a list that only grows: one root for all of it, short proofs for each entry.

Leaves and inner nodes are hashed with different first bytes, so that no list of nodes can pass for
a list of leaves. A tree that grows keeps one hash per one-bit of its size, so its state is small.

Source: RFC 6962, section 2.1 (the tree and its paths); RFC 9162, section 2.1.3.2 (how a path is
checked).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_LEAF, _NODE = b"\x00", b"\x01"


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of one entry."""
    return hashlib.sha256(_LEAF + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two neighbouring subtrees."""
    return hashlib.sha256(_NODE + left + right).digest()


@dataclass
class Tree:
    """A growing tree. `peaks` are the roots of its whole subtrees, largest first."""

    size: int = 0
    peaks: list[bytes] = field(default_factory=list)

    def add(self, leaf: bytes) -> None:
        """Append a leaf, given by its hash."""
        size = self.size
        while size & 1:
            leaf = node_hash(self.peaks.pop(), leaf)
            size >>= 1
        self.peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the hash that stands for all leaves in their order."""
        if not self.peaks:
            return hashlib.sha256().digest()
        found = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            found = node_hash(peak, found)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        return {"size": self.size, "peaks": [peak.hex() for peak in self.peaks]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tree:
        """Read what `to_json` wrote."""
        return cls(data["size"], [bytes.fromhex(peak) for peak in data["peaks"]])


def tree_of(leaves: Iterable[bytes]) -> Tree:
    """Return the tree of these leaves' hashes."""
    tree = Tree()
    for leaf in leaves:
        tree.add(leaf)
    return tree


class Paths:
    """The ways from the leaves of a finished tree to its root. It holds every node once.

    A level has the roots of neighbouring pairs of the level below; what has no neighbour goes up
    as it is. That is the published tree: its left part is the largest whole one.
    """

    def __init__(self, leaves: Iterable[bytes]) -> None:
        """Take the leaves' hashes."""
        self._levels = [list(leaves)]
        while len(below := self._levels[-1]) > 1:
            pairs = zip(below[::2], below[1::2], strict=False)
            alone = below[-1:] if len(below) & 1 else []
            self._levels.append([*(node_hash(left, right) for left, right in pairs), *alone])

    @property
    def leaves(self) -> Sequence[bytes]:
        """The leaves' hashes."""
        return self._levels[0]

    def of(self, index: int) -> list[bytes]:
        """Return the hashes that lead from a leaf to the root, nearest first."""
        assert 0 <= index < len(self.leaves), f"there is no leaf {index}"
        path = []
        for level in self._levels[:-1]:
            if index ^ 1 < len(level):
                path.append(level[index ^ 1])
            index >>= 1
        return path


def leads_to(root: bytes, *, leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bool:
    """Return whether a path proves that a leaf has this place in the tree with this root."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(step, found)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, step)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root
