"""Our C code: compiled where a compiler is, once per machine and source, and loaded by ctypes.

Nothing here is needed: every caller has a path in torch alone.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

_SOURCE = Path(__file__).with_name("mixture.c")
# Fast math only when compiling: a linker that is told so makes every process flush denormals.
_COMPILE = ("-std=c11", "-O3", "-march=native", "-ffast-math", "-mprefer-vector-width=512")
_LINK = ("-shared", "-fopenmp", "-lmvec", "-lm")
_TIMEOUT_S = 60


class Native:
    """The loaded library, and the name of its build: other builds may give other bits."""

    def __init__(self, path: Path) -> None:
        self.build = path.stem.rpartition("-")[2]
        self.functions = ctypes.CDLL(str(path))


@functools.cache
def native() -> Native | None:
    """Return our compiled code, built at the first call; None where nothing can build it."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or platform.machine() != "x86_64":
        return None
    try:
        return Native(_built(compiler))
    except (OSError, subprocess.SubprocessError):
        return None  # no headers, no vector library, a folder that nothing may write to


def _built(compiler: str) -> Path:
    """Return the shared library for this source, compiler and processor; build it where absent."""
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
    ).stdout
    told = "\n".join([_SOURCE.read_text(), version, *_COMPILE, *_LINK, _processor()])
    target = _cache() / f"mixture-{hashlib.sha256(told.encode()).hexdigest()[:16]}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as draft:
            half, whole = Path(draft) / "mixture.o", Path(draft) / target.name
            for command in (
                [compiler, *_COMPILE, "-fopenmp", "-fPIC", "-c", str(_SOURCE), "-o", str(half)],
                [compiler, str(half), *_LINK, "-o", str(whole)],
            ):
                subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT_S)
            whole.replace(target)
    return target


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "uni-moe"


def _processor() -> str:
    """Return what `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
