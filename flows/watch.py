"""What starts a retraining by having changed: raw data, or the contract."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uni_moe.artifacts import Layout, read_json, sha256_file, write_json
from uni_moe.config import load_params

WORDS = {"data": "new data", "contract": "contract changed"}
_ABSENT = "absent"


def look(layout: Layout, what: Sequence[str]) -> dict[str, str]:
    """Return a digest of each watched thing: of names, sizes and times of data, of a contract.

    A contract that is not there, as while an editor saves it, is another one.
    """
    params = load_params(layout.params)
    looks = {
        "data": lambda: _digest(layout.root / params.raw),
        "contract": lambda: _digest_file(layout.root / params.contract.manifest),
    }
    return {name: looks[name]() for name in what}


def _digest(folder: Path) -> str:
    """Digest a folder without reading it. What vanishes meanwhile is found at the next look."""
    found = hashlib.sha256()
    for place, below, files in os.walk(folder, followlinks=True):
        below.sort()
        for name in sorted(files):
            try:
                at = (Path(place) / name).stat()
            except OSError:
                continue
            found.update(f"{place}/{name}\0{at.st_size}\0{at.st_mtime_ns}\n".encode())
    return found.hexdigest()


def _digest_file(file: Path) -> str:
    try:
        return sha256_file(file)
    except FileNotFoundError:
        return _ABSENT


@dataclass
class Watch:
    """Remembers what was seen at the last retraining, and how long a change has stood still."""

    file: Path  # keeps what was seen
    settle_s: float
    _last: dict[str, str] = field(default_factory=dict)
    _since: float = 0.0

    def changed(self, now: Mapping[str, str], at_s: float) -> list[str]:
        """Return what is new and stands still by now; the first look ever finds nothing new.

        Args:
            now: what `look` returned.
            at_s: a clock's time, in seconds.
        """
        if self._last != now:
            self._last, self._since = dict(now), at_s
        seen = read_json(self.file) if self.file.is_file() else {}
        if not set(now) <= set(seen):  # what is watched for the first time
            self.remember({**now, **seen})
            seen = {**now, **seen}
        different = [name for name, digest in now.items() if seen[name] != digest]
        return different if at_s - self._since >= self.settle_s else []

    def remember(self, now: Mapping[str, str]) -> None:
        """Keep what was seen, also for the next start."""
        write_json(self.file, dict(now))
