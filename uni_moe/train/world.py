"""The processes that train together: who this one is, and what they tell each other.

A launcher (torchrun, DeepSpeed's, Slurm's) names rank and size in the environment; without one a
process is alone. Every function here is called by all of them, in the same order.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from uni_moe.errors import StageError

# A rank that waits longer for another stops: it does not wait for one that has died.
PATIENCE_S = 600.0


@dataclass(frozen=True)
class World:
    """This process's rank among `size`, and its place on its own machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all have made."""
        return self.rank == 0


def here() -> World:
    """Return this process's place, as its launcher says."""
    told = os.environ.get
    return World(int(told("RANK", "0")), int(told("WORLD_SIZE", "1")), int(told("LOCAL_RANK", "0")))


def join(patience_s: float = PATIENCE_S) -> World:
    """Meet the others; the second call finds all of them met.

    Raises:
        StageError: they did not come within `patience_s` seconds.
    """
    world = here()
    if distributed.is_initialized():
        return world
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    timeout = datetime.timedelta(seconds=patience_s)
    if world.size == 1:  # a store in memory: no port that another process could take first
        store = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group(backend, store=store, rank=0, world_size=1, timeout=timeout)
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


def meet() -> None:
    """Wait until all have come here."""
    if here().size > 1:
        distributed.barrier()


def leave() -> None:
    """Part from the others once all are done: who goes earlier would look as if it had died."""
    if here().size > 1:
        distributed.barrier()
        distributed.destroy_process_group()
