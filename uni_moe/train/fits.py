"""Whether a training fits into the memory that there is: told by a plan, refused before a start."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from uni_moe import launch, routes
from uni_moe.errors import ConfigError
from uni_moe.launch import size_here, size_of
from uni_moe.machine import Machine
from uni_moe.model.backends.fused import pad_rows
from uni_moe.train.activations import Way
from uni_moe.train.memory import Around, Memory, Ranks, host_memory_of
from uni_moe.train.precision import DTYPES, Precision
from uni_moe.train.sizes import Weights

# What a process has before there is a network: Python, torch, transformers, DeepSpeed (measured
# with torch 2.13 for CPUs: 525 to 545 MB). A phase has more, for what decodes and encodes media: 8
# MB where all features are kept, 16 where all are made. One of several ranks has what talks to the
# others (gloo: 50 MB with two). An accelerator has its context.
_PROCESS_CPU, _PROCESS_ACCELERATOR = 540_000_000, 700_000_000
_OF_MEDIA, _OF_RANKS = 12_000_000, 48_000_000
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Room:
    """How much memory one process has at most, and where that was read."""

    size_bytes: int
    said_by: str


@dataclass(frozen=True)
class Host:
    """What a process with an accelerator needs of its machine's own memory, and what there is."""

    memory: Memory
    room: Room

    @property
    def fits(self) -> bool:
        """Whether it is enough."""
        return self.memory.needed <= self.room.size_bytes


def ranks_of(machine: Machine, *, stage: str, precision: Precision = "float32") -> Ranks:
    """Return how a stage is spread: by the profile, over the processes that a launcher started.

    Experts are spread where there is a mixture.
    """
    return Ranks(
        world=size_of(machine),
        zero_stage=machine.zero_stage,
        expert_parallel=machine.expert_parallel if stage == "tune" else 1,
        offload=machine.offload_optimizer,
        precision=precision,
        activation_checkpointing=machine.activation_checkpointing,
        accelerator=torch.cuda.is_available(),
    )


def way_of(chosen: routes.Routes, ranks: Ranks) -> Way:
    """Return how a step computes by these routes."""
    return Way(
        number=ranks.number,
        attention=chosen.attention,
        experts=chosen.experts,
        checkpointing=ranks.activation_checkpointing,
        spread=ranks.expert_parallel,
        pad_rows=pad_rows(DTYPES[ranks.precision], "cuda" if ranks.accelerator else "cpu"),
        accelerator=ranks.accelerator,
    )


def process_bytes(ranks: Ranks, *, media: bool) -> int:
    """Return what a process has before there is a network, and for `media`, where it meets them."""
    if ranks.accelerator:
        return _PROCESS_ACCELERATOR
    return _PROCESS_CPU + _OF_MEDIA * media + _OF_RANKS * (ranks.world > 1)


def room_of(machine: Machine, abreast: int | None = None) -> Room:
    """Return the memory of one process: what the profile says, else its share of this machine.

    Where there is an accelerator, that is its own; see `host_of` for the machine's.

    Args:
        machine: the profile.
        abreast: how many trainings run at once; None asks the environment, where a flow told it.
    """
    if machine.memory_bytes is not None:
        return Room(machine.memory_bytes, "memory_bytes in machine.yaml")
    stages = launch.abreast() if abreast is None else abreast
    if torch.cuda.is_available():
        device: Any = torch.cuda.get_device_properties(0)
        said_by = f"the accelerator {device.name}{_shared_by(stages)}"
        return Room(int(device.total_memory) // stages, said_by)
    return _share_of_machine(machine, stages)


def host_of(
    machine: Machine, weights: Weights, ranks: Ranks, around: Around, abreast: int | None = None
) -> Host | None:
    """Return what a process takes of this machine's memory; None where it has no accelerator.

    There the machine's memory is all there is. A profile's `memory_bytes` is the accelerator's.
    """
    if not ranks.accelerator:
        return None
    around = replace(around, process=process_bytes(replace(ranks, accelerator=False), media=True))
    memory = host_memory_of(weights, ranks, here=size_here(machine), around=around)
    stages = launch.abreast() if abreast is None else abreast
    return Host(memory, _share_of_machine(machine, stages))


def _share_of_machine(machine: Machine, stages: int) -> Room:
    count = size_here(machine)
    whole = min([_physical(), *allowed()])
    said_by = f"this machine, {count} process(es) on it{_shared_by(stages)}"
    return Room(whole // (count * stages), said_by)


def _shared_by(stages: int) -> str:
    return f", shared by {stages} trainings side by side (UNI_MOE_WORKERS)" * (stages > 1)


def fitting(
    needs: Callable[[routes.Routes], Memory], chosen: routes.Routes, asked: str, room: Room
) -> tuple[routes.Routes, Memory]:
    """Return the routes that a training takes, and what it needs by them.

    Where the machine chooses the allocator (`auto`), tensors are mapped one by one if the gaps of a
    heap that keeps what was freed were too much.
    """
    memory = needs(chosen)
    if memory.needed > room.size_bytes and asked == "auto" and chosen.allocator == "keep":
        mapped = replace(chosen, allocator="map")
        if needs(mapped).needed <= room.size_bytes:
            return mapped, needs(mapped)
    return chosen, memory


def check_fits(stage: str, memory: Memory, room: Room) -> None:
    """Refuse a training that needs more memory than there is.

    Raises:
        ConfigError: it does.
    """
    if memory.needed <= room.size_bytes:
        return
    raise ConfigError(
        problem(stage, memory, room),
        cause=f"{most(memory)} at its busiest moment ({memory.moment}); the limit is said by "
        f"{room.said_by}.",
        remedy="lower `packing.row_positions` or `rows` of the phase, set "
        "`activation_checkpointing: true` or `zero_stage: 3` with more processes in machine.yaml, "
        "or take a machine with more memory; `uni-moe plan` says what each part needs.",
    )


def check_host_fits(stage: str, host: Host) -> None:
    """Refuse a training whose machine has too little memory of its own beside its accelerators.

    Raises:
        ConfigError: it has.
    """
    if host.fits:
        return
    raise ConfigError(
        host_problem(stage, host),
        cause=f"{most(host.memory)} at its busiest moment there ({host.memory.moment}): every rank "
        f"builds the network in the machine's memory first; the limit is said by "
        f"{host.room.said_by}.",
        remedy="let fewer processes or trainings share a machine (`processes` and `nodes` in "
        "machine.yaml, UNI_MOE_WORKERS), or take one with more memory; `uni-moe plan` says what "
        "each part needs.",
    )


def host_problem(stage: str, host: Host) -> str:
    """Return one line that says what is too much."""
    return (
        f"{stage} needs {host.memory.needed / 2**30:.1f} GiB of the machine's own memory for each "
        f"process, there are {host.room.size_bytes / 2**30:.1f} GiB."
    )


def problem(stage: str, memory: Memory, room: Room) -> str:
    """Return one line that says what is too much."""
    return (
        f"{stage} needs {memory.needed / 2**30:.1f} GiB of memory in one process, "
        f"there are {room.size_bytes / 2**30:.1f} GiB."
    )


def most(memory: Memory) -> str:
    """Return the two largest parts in words."""
    largest = sorted(memory.parts.items(), key=lambda part: -part[1])[:2]
    return " and ".join(f"{name} take {size / 2**30:.1f} GiB" for name, size in largest)


def _physical() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def allowed(root: Path = _GROUPS, own: Path = _OWN_GROUPS) -> list[int]:
    """Return the limits in bytes of the control groups that this process is in, outer ones as well.

    A container, a batch system or a service manager sets them.

    Args:
        root: where the groups lie.
        own: the file that names this process's.
    """
    found = []
    for name in _limit_files(root, own):
        try:
            text = name.read_text(encoding="ascii").strip()
        except OSError:  # a container names groups that it does not see
            continue
        if text.isdecimal():
            found.append(int(text))
    return found


def _limit_files(root: Path, own: Path) -> Iterator[Path]:
    """Yield where limits stand: in one tree, or, by version 1, in one for memory alone."""
    lines = own.read_text(encoding="utf-8").splitlines() if own.is_file() else []
    for line in lines:
        controllers, _, group = line.partition(":")[2].partition(":")
        inner = Path(group.lstrip("/"))
        for place in (inner, *inner.parents):
            if not controllers:
                yield root / place / "memory.max"
            elif "memory" in controllers.split(","):
                yield root / "memory" / place / "memory.limit_in_bytes"
