"""The processes in which contenders run: this one, tuned, and one that is as torch ships it.

The allocator's setting cannot be taken back, so each setting has a process of its own. Rounds go
back and forth between both; the one whose turn it is not sleeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from statistics import median
from typing import Any

import torch

from benchmarks.rounds import OURS, SHIPPED, TUNED, WALL, Burst, Place
from uni_moe import platform
from uni_moe.config import Platform
from uni_moe.errors import StageError

Run = Callable[[int], Callable[[], object]]
"""Prepares call number i, its own input; the clock sees what it returns."""


@dataclass(frozen=True)
class Lacking:
    """Stands where a contender would, and says why there is none."""

    why: str


Runs = Mapping[str, Run | Lacking]
Build = Callable[[], Runs]
_START_S = 300  # torch, transformers and all weights, on a busy machine
_END_S = 10


@dataclass(frozen=True)
class Clock:
    """Seconds of this thread where it is the only one that computes, else of the wall."""

    threads: int
    device: str

    @property
    def is_thread_time(self) -> bool:
        """Whether other processes are left out."""
        return self.threads == 1 and self.device == "cpu"

    def __str__(self) -> str:
        """Return what JSON says."""
        return "CPU time of the thread" if self.is_thread_time else WALL

    def now(self) -> float:
        """Return seconds; an accelerator has done what it was told before."""
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.thread_time() if self.is_thread_time else time.perf_counter()


class Here:
    """This process."""

    def __init__(self, built: Runs, clock: Clock) -> None:
        self._clock = clock
        self._runs = {name: one for name, one in built.items() if not isinstance(one, Lacking)}
        self.names = list(self._runs)
        self.absent = {name: one.why for name, one in built.items() if isinstance(one, Lacking)}

    def burst(self, name: str, first: int, calls: int) -> Burst:
        """See Place. Inputs are made before the clock starts.

        As many calls as count run before: libraries keep their plans for everybody in one cache,
        and who ran last has filled it. Only ours pays for deterministic kernels. An accelerator's
        peak is what calls add to what lay there before them.
        """
        is_ours = name.startswith(OURS)
        torch.use_deterministic_algorithms(mode=is_ours, warn_only=True)
        ready = [self._runs[name](index) for index in range(first, first + 2 * calls)]
        for call in ready[:calls]:
            call()
        on_gpu = self._clock.device != "cpu"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated() if on_gpu else 0
        times = [self._clock.now()]
        for call in ready[calls:]:
            call()
            times.append(self._clock.now())
        seconds = median(after - before for before, after in pairwise(times))
        return Burst(seconds, torch.cuda.max_memory_allocated() - held if on_gpu else None)


class Apart:
    """A process of its own."""

    def __init__(self, build: Build, clock: Clock) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, clock), daemon=True)
        self._process.start()
        theirs.close()
        self.names: list[str]
        self.absent: dict[str, str]
        self.names, self.absent = self._answer()

    def burst(self, name: str, first: int, calls: int) -> Burst:
        """See Place."""
        self._pipe.send((name, first, calls))
        burst: Burst = self._answer()
        return burst

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()

    def _answer(self) -> Any:  # noqa: ANN401 - what the other side sends
        try:
            if self._pipe.poll(_START_S):
                return self._pipe.recv()
        except EOFError:
            self._process.join(_END_S)
        raise StageError(
            "The process for peers as shipped gives no answer.",
            cause=f"it ended with {self._process.exitcode}, or hangs; its words stand above.",
            remedy="leave it out with --tuned-only, or free memory and run again.",
        )


def _serve(pipe: Any, build: Build, clock: Clock) -> None:  # noqa: ANN401 - a connection
    """Build, then measure whatever is asked for until the other side hangs up."""
    torch.set_num_threads(clock.threads)
    here = Here(build(), clock)
    pipe.send((here.names, here.absent))
    while True:
        try:
            asked = pipe.recv()
        except EOFError:
            return
        pipe.send(here.burst(*asked))


def settle(threads: int, heap_gb: float) -> dict[str, Any]:
    """Tune this process as a training is tuned; return its routes and the machine.

    An allocator that keeps its memory grows for minutes while contenders share it; on a virtual
    machine each new page costs microseconds. A heap that has grown before is one of a long run.
    """
    told = platform.settle(Platform.auto(threads=threads))
    torch.ones(int(heap_gb * 1e9), dtype=torch.uint8)
    return told


@contextmanager
def places(clock: Clock, tuned: Build, shipped: Build | None) -> Iterator[dict[str, Place]]:
    """Yield this process, which is tuned already, and one beside it that is not."""
    apart = Apart(shipped, clock) if shipped is not None else None
    try:
        here: dict[str, Place] = {TUNED: Here(tuned(), clock)}
        yield here if apart is None else {**here, SHIPPED: apart}
    finally:
        if apart is not None:
            apart.close()
