"""Whether models fit into this machine's memory beside what runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

WEIGHTS_SHARE = 1.25  # what a model needs while it computes, for each byte of its weights
PROCESS_BYTES = 1_500_000_000  # of a process with torch, before any model
_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Room:
    """What is needed and what is free, in bytes; `free` is None where the system does not say."""

    weights: int
    free: int | None

    @property
    def needed(self) -> int:
        """What a process that answers takes."""
        return round(self.weights * WEIGHTS_SHARE) + PROCESS_BYTES

    @property
    def is_enough(self) -> bool:
        """Whether it fits; where the system does not say, it may."""
        return self.free is None or self.needed <= self.free


def room(folders: Iterable[Path]) -> Room:
    """Return what models need together, by their weights' files, and what is free."""
    files = (file for folder in set(folders) for file in folder.glob("*.safetensors"))
    return Room(sum(file.stat().st_size for file in files), free_bytes())


def free_bytes(meminfo: Path = _MEMINFO, group: Path = _GROUP) -> int | None:
    """Return how much memory can be had: the machine's, or what this container may still take."""
    found = [size for size in (_of_machine(meminfo), _of_group(group)) if size is not None]
    return min(found) if found else None


def _of_machine(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    told = next((line for line in lines if line.startswith("MemAvailable:")), None)
    return int(told.split()[1]) * 1024 if told else None


def _of_group(group: Path) -> int | None:
    """Return the same of a control group of version 2; its file cache can be given back."""
    try:
        most = (group / "memory.max").read_text(encoding="ascii").strip()
        now = int((group / "memory.current").read_text(encoding="ascii"))
        told = dict(
            line.split() for line in (group / "memory.stat").read_text("ascii").splitlines()
        )
    except (OSError, ValueError):
        return None
    if most == "max":
        return None
    return max(0, int(most) - now + int(told.get("inactive_file", 0)))
