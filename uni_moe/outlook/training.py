"""What one training stage will learn, hold and compute, as a plan tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uni_moe.outlook.draws import Looked, Pool
from uni_moe.train.fits import Host, Room
from uni_moe.train.memory import Memory, Ranks
from uni_moe.train.work import Work

LEARNING_BYTES = 4  # of a number that learns: float32 always


@dataclass(frozen=True)
class Training:
    """What one stage trains.

    `learns` counts numbers by part, `parameters` all of the network's, adapters too, `connectors`
    those of each connector. `memory` is None where it is not modelled; it is that by `allocator`.
    `host` is what a process takes of its machine's memory, None where it has no accelerator.
    `measured` says that conversations were laid out, not assumed, `older` that they are of a corpus
    that was not made from the samples that are here. `pools` is by modality, empty without corpora.
    Positions and labels are means of a step, over all ranks. `problem` is what ends the stage
    before its first step, as far as its draws were looked at.
    """

    learns: Mapping[str, int]
    parameters: int
    connectors: Mapping[str, int]
    memory: Memory | None
    allocator: str
    ranks: Ranks
    room: Room
    host: Host | None
    steps: int
    draws_per_step: float
    positions_per_step: float
    labels_per_step: float
    measured: bool
    older: bool
    work: Work
    pools: Mapping[str, Pool]
    looked: Looked | None
    problem: str | None

    @property
    def trained(self) -> int:
        """How many numbers learn."""
        return sum(self.learns.values())

    @property
    def trained_bytes(self) -> int:
        """Bytes of what learns, as it is kept."""
        return self.trained * LEARNING_BYTES

    @property
    def flops(self) -> float:
        """Floating point operations of all steps, by the estimate of `train.work`."""
        positions, labels = self.positions_per_step, self.labels_per_step
        return self.steps * (
            positions * self.work.flops_per_position + labels * self.work.flops_per_label
        )

    @property
    def fits(self) -> bool | None:
        """Whether one process has the memory; None where it is not modelled."""
        if self.memory is None:
            return None
        on_the_machine = self.host is None or self.host.fits
        return self.memory.needed <= self.room.size_bytes and on_the_machine

    def to_json(self) -> dict[str, Any]:
        """Return what a plan says of it, as a JSON object."""
        memory = self.memory
        return {
            "learns": dict(self.learns),
            "learning_parameters": self.trained,
            "learning_bytes": self.trained_bytes,
            "parameters": self.parameters,
            "ranks": self.ranks.world,
            "zero_stage": self.ranks.stage,
            "expert_parallel": self.ranks.expert_parallel,
            "memory": None
            if memory is None
            else {
                "needed_bytes": memory.needed,
                "room_bytes": self.room.size_bytes,
                "room_said_by": self.room.said_by,
                "fits": self.fits,
                "allocator": self.allocator,
                "busiest": memory.moment,
                "parts": {part: size for part, size in memory.parts.items() if size},
                "moments": dict(memory.moments),
            },
            "host_memory": None
            if self.host is None
            else {
                "needed_bytes": self.host.memory.needed,
                "room_bytes": self.host.room.size_bytes,
                "room_said_by": self.host.room.said_by,
                "fits": self.host.fits,
                "parts": {part: size for part, size in self.host.memory.parts.items() if size},
            },
            "steps": self.steps,
            "draws_per_step": round(self.draws_per_step, 2),
            "positions_per_step": round(self.positions_per_step, 1),
            "labels_per_step": round(self.labels_per_step, 1),
            "lengths": "corpus" if self.measured else "assumed",
            "older_corpus": self.older,
            "problem": self.problem,
            "flops": self.flops,
            "samples": {name: pool.to_json() for name, pool in self.pools.items()},
        }
