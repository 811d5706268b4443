"""The processes that train together: who this one is, and what they tell each other.

A launcher (torchrun, DeepSpeed's, Slurm's) names rank and size in the environment; without one a
process is alone. Every function here is called by all of them, in the same order.
"""

from __future__ import annotations

import atexit
import datetime
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed

from uni_moe.errors import StageError, bullets
from uni_moe.launch import World, here
from uni_moe.machine import Machine

_STAYS = datetime.timedelta(days=7)


def join(patience_s: float = Machine.patience_s) -> World:
    """Meet the others; the second call finds all of them met.

    Raises:
        StageError: they did not come within `patience_s` seconds.
    """
    world = here()
    if distributed.is_initialized():
        return world
    # What the loop counts lies on the CPU, what the engine shares on its device.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    timeout = datetime.timedelta(seconds=patience_s)
    if world.size == 1:  # a store in memory: no port that another process could take first
        store = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group(backend, store=store, rank=0, world_size=1, timeout=timeout)
        atexit.register(_end_group)  # NCCL warns of a group that nobody ended
        return world
    if torch.cuda.is_available():
        torch.cuda.set_device(world.local_rank)
    try:
        distributed.init_process_group(backend, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise StageError(
            f"Rank {world.rank} of {world.size} did not meet the others: {error}",
            cause="a rank did not start, or the address that they meet at is not reachable.",
            remedy="see the first rank that ended with an error; check `rendezvous` in "
            "machine.yaml and that all nodes reach it.",
        ) from error
    return world


def summed(values: Tensor) -> Tensor:
    """Return the sum over all ranks, the same bits on each."""
    if here().size > 1:
        distributed.all_reduce(values)
    return values


def gathered(value: Any) -> list[Any]:  # noqa: ANN401 - anything that can be sent
    """Return every rank's value on the first rank, in the order of ranks; nothing on others."""
    world = here()
    if world.size == 1:
        return [value]
    found: list[Any] | None = [None] * world.size if world.is_first else None
    distributed.gather_object(value, found)
    return found or []


def from_first(value: Any) -> Any:  # noqa: ANN401 - anything that can be sent
    """Return the first rank's value on every rank."""
    if here().size == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box)
    return box[0]


def same_on_all(facts: Mapping[str, str]) -> None:
    """Hold what each rank goes by to what the first goes by; all call this together.

    Raises:
        StageError: on every rank, naming the facts that differ and where.
    """
    found: list[Any] = [dict(facts)] * here().size
    if here().size > 1:
        distributed.all_gather_object(found, dict(facts))
    problems = [
        f"{name}: {theirs.get(name)} on rank {rank}, {value} on rank 0"
        for name, value in found[0].items()
        for rank, theirs in enumerate(found)
        if theirs.get(name) != value
    ]
    if problems:
        raise StageError(
            f"The ranks would not train the same:{bullets(problems)}",
            cause="a node has another params.yaml, another machine.yaml, other artifacts or other "
            "code; or other packages or another processor, by which copies of one weight would "
            "drift apart.",
            remedy="let all nodes work in one shared workspace, on machines of one kind, or bring "
            "them to the same state; then give the same command again.",
        )


def leave(first: Any = None) -> None:  # noqa: ANN401 - torch's process group
    """Part from the others once all are here. Who goes without a word would look as if it had died.

    A process that is alone keeps its group, for a phase that may come, until the process ends.

    Args:
        first: what `patient` returned, where the first rank comes when it has done what it does
            alone.

    Raises:
        StageError: another rank ended before it came.
    """
    if here().size == 1:
        return
    try:
        distributed.barrier(first)
    except RuntimeError as error:
        raise StageError(
            f"Rank {here().rank} waited for the others at the end, and one is gone: {error}",
            cause="it ended with an error, or was killed; nothing that it had not ended to write "
            "is there.",
            remedy="see the first rank that ended with an error, then give the same command again.",
        ) from error
    _end_group()


def _end_group() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def patient() -> Any:  # noqa: ANN401 - torch's process group
    """Return a group whose members wait for each other much longer than for a step.

    A launcher may end all once some of its nodes' ranks are gone, so others stay while the first
    writes what all have made, however long that takes.
    """
    return distributed.new_group(backend="gloo", timeout=_STAYS) if here().size > 1 else None
