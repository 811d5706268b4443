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
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

_LOOK_S = 0.05  # at whether a group has ended


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
    """Ask a process and all its children to end, and kill those that do not.

    Args:
        process: what `start` returned.
        patience_s: how long they may take to end by themselves.
    """
    signal_group(process, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    try:
        while process.poll() is None or _works(process.pid):
            if time.monotonic() > deadline:
                break
            time.sleep(_LOOK_S)
    finally:  # also where a person loses patience
        signal_group(process, signal.SIGKILL)
        process.wait()


def _works(group: int) -> bool:
    """Return whether a process of a group is at work, where /proc tells; a zombie is not."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, _, its_group = file.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


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
