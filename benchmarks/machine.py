"""On which machine something was measured, and how busy it was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "transformers", "peft", "deepspeed")


def hardware() -> dict[str, Any]:
    """Return processor, cores, accelerator and the packages that compute."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """Return what the processor calls itself."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def name() -> str:
    """Return what results and bars call this machine: its accelerator, or processor and cores."""
    said = hardware()["accelerator"] or f"{processor()} {os.cpu_count()} cores"
    return re.sub(r"[^a-z0-9]+", "-", said.lower()).strip("-")


def load() -> float | None:
    """Return how many processes wanted to run in the last minute; above the cores is noise."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def peak_bytes() -> int:
    """Return the most memory that this process has held.

    Linux counts its own since the program began; elsewhere `ru_maxrss` may hold its parent's.
    """
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = re.search(r"^VmHWM:\s*(\d+) kB$", text, flags=re.MULTILINE)
    assert found is not None, "Linux tells every process its peak"
    return int(found[1]) * 1024
