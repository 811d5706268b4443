"""A program on a leash: it and its children end when whoever holds the other end of stdin ends.

A killed flow takes the pipe with it. So no stage is left behind to race with the next run, and no
server either.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO


def start(
    module: str,
    arguments: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    output: TextIO | int = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """Start a Python module as the head of a process group that ends with us at the latest."""
    return subprocess.Popen(
        [sys.executable, "-m", "uni_moe.leash", module, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signal a process and all its children, those left by a dead parent included."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def end(process: subprocess.Popen[str], patience_s: float) -> None:
    """Ask a process and all its children to end; kill what is left once it has, or in the end.

    Args:
        process: what `start` returned.
        patience_s: how long it may take to end by itself.
    """
    signal_group(process, signal.SIGTERM)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
    finally:  # also where a person loses patience
        signal_group(process, signal.SIGKILL)
        process.wait()


def _main() -> None:
    """Run a module as a program."""
    assert os.getpgrp() == os.getpid(), "the leash starts in a session of its own"
    threading.Thread(target=_hold, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _hold() -> None:
    os.read(sys.stdin.fileno(), 1)  # nobody writes: this returns when the other end is closed
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    _main()
