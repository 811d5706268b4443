"""Disk use by kind, of a workspace and of its remote.

A file that has several names on one disk, as DVC makes them where it can, is counted once, under
the first of its kinds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uni_moe.artifacts import Layout
from uni_moe.data.features import feature_folder
from uni_moe.machine import Machine
from uni_moe.registry.cards import CARDS
from uni_moe.registry.travel import size_text
from uni_moe.storage.dvc_names import FILES
from uni_moe.storage.objects import Objects

KINDS = {
    "models": "weights of registered versions",
    "reports": "judgements of registered versions",
    "records": "cards, locks, tombstones and the audit log",
    "dvc": "DVC's data, in its cache or in the remote",
    "artifacts": "what stages made, as it lies in artifacts/",
    "runs": "run folders",
    "states": "training states",
    "features": "features of frozen encoders",
    "registry": "the index",
    "other": "all else below state/ and .dvc/",
}
_STATE = re.compile(r"[^/]+-[0-9a-f]{16}/")


@dataclass(frozen=True)
class Use:
    """Bytes and files of one kind in one place."""

    where: str
    kind: str
    size_bytes: int
    files: int

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


def disk_here(layout: Layout, machine: Machine, cache: Path | None = None) -> list[Use]:
    """Return what a workspace takes, by kind; what is empty is left out.

    `cache` is the folder of DVC's cache where it is not the workspace's own.
    """
    features = feature_folder(layout, machine.features)
    roots = [layout.store, cache or layout.root / ".dvc" / "cache", layout.artifacts, layout.runs]
    roots += [features, layout.state, layout.root / ".dvc"]
    sizes: dict[str, list[int]] = {kind: [] for kind in KINDS}
    seen: set[tuple[int, int]] = set()
    for number, root in enumerate(roots):
        for file in _files(root):
            about = file.stat(follow_symlinks=False)
            if (about.st_dev, about.st_ino) not in seen:
                seen.add((about.st_dev, about.st_ino))
                inside = Path(file.path).relative_to(root).as_posix()
                sizes[_kind(number, inside)].append(about.st_size)
    sizes["registry"] += [file.stat().st_size for file in layout.root.glob("registry.sqlite*")]
    return _uses("here", sizes)


def disk_there(store: Objects, dvc: Objects) -> list[Use]:
    """Return what a remote takes, by kind.

    Raises:
        StoreError: it cannot be reached or refuses.
    """
    sizes: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for name, one in store.listed().items():
        sizes["runs" if name.startswith("runs/") else _of_store(name)].append(one.size_bytes)
    for name, one in dvc.listed().items():
        sizes["dvc" if name.startswith(FILES) else "other"].append(one.size_bytes)
    return _uses("remote", sizes)


def disk_text(uses: list[Use]) -> str:
    """Return a table for people."""
    lines = [f"{'where':8}{'kind':11}{'size':>14}{'files':>10}  what"]
    for one in uses:
        size, files = size_text(one.size_bytes), f"{one.files:,}"
        lines.append(f"{one.where:8}{one.kind:11}{size:>14}{files:>10}  {KINDS[one.kind]}")
    for where in dict.fromkeys(one.where for one in uses):
        total = sum(one.size_bytes for one in uses if one.where == where)
        lines.append(f"{where:8}{'all':11}{size_text(total):>14}")
    return "\n".join(lines)


def _kind(number: int, inside: str) -> str:
    """Return the kind of a file of the store, or of the folders that are looked at after it."""
    if number == 0:
        return _of_store(inside)
    if number == 5 and _STATE.match(inside):
        return "states"
    return ("", "dvc", "artifacts", "runs", "features", "other", "other")[number]


def _of_store(name: str) -> str:
    key = name.partition("/")[2]
    if key.startswith("model"):
        return "models"
    return "reports" if key.startswith("report-") and not key.startswith(CARDS) else "records"


def _files(root: Path) -> Iterator[os.DirEntry[str]]:
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield entry


def _uses(where: str, sizes: Mapping[str, list[int]]) -> list[Use]:
    return [Use(where, kind, sum(found), len(found)) for kind, found in sizes.items() if found]
