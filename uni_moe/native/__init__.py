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
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

_FOLDER = Path(__file__).parent
MOST_VISITS = 256  # of tokens to experts, in one call of `mixture`
# Fast math only when compiling: a linker that is told so makes every process flush denormals.
_COMPILE = (
    *("-std=c11", "-O3", "-march=native", "-ffast-math", "-mprefer-vector-width=512"),
    f"-DMOST_VISITS={MOST_VISITS}",
)
_LINK = ("-shared", "-fopenmp", "-lmvec", "-lm")
_TIMEOUT_S = 60


_TYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}


class Native:
    """The loaded library, and the name of its build: other builds may give other bits."""

    def __init__(self, path: Path) -> None:
        self.build = path.stem.rpartition("-")[2]
        self._functions = ctypes.CDLL(str(path))

    def call(
        self,
        name: str,
        dtype: torch.dtype,
        tensors: Sequence[Tensor],
        sizes: Sequence[int],
        *last: ctypes.c_int | ctypes.c_float,
    ) -> None:
        """Call a function for this type of numbers.

        Tensors are contiguous and lie on the CPU; those of real numbers have this type, or float32
        where the function computes with it (shares, sums, room).
        """
        for one in tensors:
            assert one.is_contiguous()
            assert one.device.type == "cpu"
            assert one.dtype in (dtype, torch.float32) or not one.is_floating_point()
        getattr(self._functions, f"{name}_{_TYPES[dtype]}")(
            *(ctypes.c_void_p(one.data_ptr()) for one in tensors),
            *(ctypes.c_int64(size) for size in sizes),
            *last,
        )


def takes(dtype: torch.dtype) -> bool:
    """Return whether our compiled code computes with numbers of this type."""
    return dtype in _TYPES


def threads() -> ctypes.c_int:
    """Return the process's number of threads as the last argument of most functions."""
    return ctypes.c_int(torch.get_num_threads())


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
    text = [path.read_text() for path in sorted(_FOLDER.glob("*.[ch]"))]
    told = "\n".join([*text, version, *_COMPILE, *_LINK, _processor()])
    target = _cache() / f"native-{hashlib.sha256(told.encode()).hexdigest()[:16]}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as draft:
            whole, sources = Path(draft) / target.name, sorted(_FOLDER.glob("*.c"))
            objects = [f"{source.stem}.o" for source in sources]
            for command in (
                [compiler, *_COMPILE, "-fopenmp", "-fPIC", "-c", *map(str, sources)],
                [compiler, *objects, *_LINK, "-o", str(whole)],
            ):
                subprocess.run(
                    command, cwd=draft, capture_output=True, check=True, timeout=_TIMEOUT_S
                )
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
