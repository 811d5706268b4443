"""A memory of bounded size: what was used longest ago is forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Remembers values of known sizes, up to a limit in bytes. What is larger is not remembered."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.size_bytes = limit_bytes, 0
        self._held: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many values are remembered."""
        return len(self._held)

    def get(self, key: Key) -> Value | None:
        """Return a value and count it as used, None where it is not remembered."""
        found = self._held.get(key)
        if found is None:
            return None
        self._held.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: Value, size_bytes: int) -> None:
        """Remember a value, in the place of what the key had."""
        if key in self._held:
            self.size_bytes -= self._held.pop(key)[1]
        if size_bytes > self.limit_bytes:
            return
        self._held[key] = value, size_bytes
        self.size_bytes += size_bytes
        while self.size_bytes > self.limit_bytes:
            self.size_bytes -= self._held.popitem(last=False)[1][1]
