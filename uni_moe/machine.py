"""The machine profile: how a stage of training is spread over processes and nodes.

`machine.yaml` lies in the workspace, is tracked by nobody and changes no hash: it says where work
is done. What is learned stays the same to rounding, but for what dropout drops: each rank draws its
own. Without it a stage runs in one process, here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from uni_moe.config_building import build_file
from uni_moe.errors import ConfigError

FILE = "machine.yaml"
NAMED = "UNI_MOE_MACHINE"  # in the environment: another file
TOLD = "profile"  # the event by which a run tells its profile
_SPREAD = (
    "processes",
    "nodes",
    "zero_stage",
    "expert_parallel",
    "offload_optimizer",
    "activation_checkpointing",
)


@dataclass(frozen=True)
class FeatureCacheSettings:
    """How far features of frozen encoders are kept on disk, by kind of media.

    They say where features come from, never what they are: nothing that is hashed knows them.
    """

    image: bool = True
    video: bool = True
    audio: bool = True
    speech: bool = True
    folder: str | None = None  # below the workspace or anywhere; None is state/features
    memory_bytes: int = 2**30  # of every process, for features used of late
    limit_bytes: int | None = None  # of the folder; None lets it grow
    spare_share: float = 0.05  # of the disk that stays free, for what must be written


@dataclass(frozen=True)
class RetentionSettings:
    """What `uni-moe gc` lets stay beside the champion; any of the three lets a version stay.

    They say what is kept of results, never what results are: nothing that is hashed knows them.
    """

    versions: int = 5  # the newest registered ones
    champions: int = 2  # the last ones, today's included: the way back needs those before it
    days: float = 30.0  # since a version was registered, or a file was last written


@dataclass(frozen=True)
class Machine:
    """How many processes train together, who starts them, and how they share the work.

    `processes` counts one node's. `rendezvous` is HOST:PORT where ranks of several nodes meet;
    `hostfile` is DeepSpeed's; `slurm` holds further words for srun. `activation_checkpointing`
    computes activations again instead of keeping them. `patience_s` is how long a rank waits for
    another. `last_states` counts the training states that stay while a phase trains; the best one
    stays beside them. With `keep_states` all stay until housekeeping finds them old, so that any
    interval can be verified by itself. `features` says what of frozen encoders is kept on disk.
    `memory_bytes` is what one process has, where plans are made on another machine than the one
    that trains. `retention` says what housekeeping lets stay. `gpu_slots` is how many stages of all
    flows use this machine's GPU at a time, None where stages need not take turns; a stage that has
    not ended after `stage_limit_s` is killed.
    """

    launcher: Literal["none", "torchrun", "deepspeed", "slurm"] = "none"
    processes: int = 1
    nodes: int = 1
    rendezvous: str | None = None
    hostfile: str | None = None
    slurm: tuple[str, ...] = ()
    zero_stage: int = 0
    expert_parallel: int = 1
    offload_optimizer: bool = False
    activation_checkpointing: bool = False
    patience_s: float = 600.0
    last_states: int = 2
    keep_states: bool = False
    memory_bytes: int | None = None
    gpu_slots: int | None = None
    stage_limit_s: float | None = None
    features: FeatureCacheSettings = field(default_factory=FeatureCacheSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)

    @property
    def world(self) -> int:
        """How many processes there are on all nodes."""
        return self.processes * self.nodes

    @property
    def spread(self) -> str:
        """How work and memory are spread: the same on every node, or ranks wait for each other."""
        told = {name: getattr(self, name) for name in _SPREAD}
        return ", ".join(f"{name} {value}" for name, value in told.items())


def load_machine(root: Path) -> Machine:
    """Read a workspace's machine profile; `UNI_MOE_MACHINE` may name another file.

    Raises:
        ConfigError: it is not YAML, or lists every key that is wrong.
    """
    named = os.environ.get(NAMED)
    path = Path(named) if named else root / FILE
    if not named and not path.is_file():
        return Machine()
    return build_file(Machine, path, _rules, chapter="To a cluster")


def _rules(machine: Machine) -> list[str]:
    """Return what types cannot say; combinations that cannot work end here, before any start."""
    told = {
        "processes: must be at least 1": machine.processes < 1,
        "nodes: must be at least 1": machine.nodes < 1,
        "zero_stage: must be 0, 1, 2 or 3": machine.zero_stage not in (0, 1, 2, 3),
        "patience_s: must be above 0": machine.patience_s <= 0,
        "last_states: must be at least 1": machine.last_states < 1,
        "memory_bytes: must be above 0": (
            machine.memory_bytes is not None and machine.memory_bytes <= 0
        ),
        "launcher: `none` starts one process; name torchrun, deepspeed or slurm for more": (
            machine.launcher == "none" and machine.world > 1
        ),
        "rendezvous: HOST:PORT is needed where several nodes meet": (
            machine.nodes > 1
            and machine.launcher in ("torchrun", "slurm")
            and machine.rendezvous is None
        ),
        "hostfile: DeepSpeed's launcher needs it for several nodes": (
            machine.nodes > 1 and machine.launcher == "deepspeed" and machine.hostfile is None
        ),
        "hostfile: DeepSpeed's launcher alone reads it": (
            machine.hostfile is not None and machine.launcher != "deepspeed"
        ),
        "slurm: the launcher slurm alone takes words for srun": (
            bool(machine.slurm) and machine.launcher != "slurm"
        ),
        "rendezvous: there is nobody to meet; it is for several nodes, or DeepSpeed's launcher": (
            machine.rendezvous is not None
            and machine.nodes == 1
            and machine.launcher != "deepspeed"
        ),
        "rendezvous: must be HOST:PORT": (
            machine.rendezvous is not None and not _is_place(machine.rendezvous)
        ),
        "expert_parallel: must be at least 1": machine.expert_parallel < 1,
        "expert_parallel: must divide the number of processes": (
            machine.expert_parallel > 0 and machine.world % machine.expert_parallel != 0
        ),
        "expert_parallel: works at `zero_stage: 0` alone: DeepSpeed would clip by the mean of the "
        "ranks' norms, which is not one process's norm; set `zero_stage` to 0 (adapters' optimizer "
        "states are small), or `expert_parallel` to 1 and `zero_stage` to 3, which spreads frozen "
        "experts, too": machine.expert_parallel > 1 and machine.zero_stage > 0,
        "offload_optimizer: not with `expert_parallel`, which works at ZeRO stage 0": (
            machine.expert_parallel > 1 and machine.offload_optimizer
        ),
        "gpu_slots: must be at least 1, or null": (
            machine.gpu_slots is not None and machine.gpu_slots < 1
        ),
        "stage_limit_s: must be above 0, or null": (
            machine.stage_limit_s is not None and machine.stage_limit_s <= 0
        ),
        **_of_features(machine.features),
        **_of_retention(machine.retention),
    }
    return [problem for problem, is_so in told.items() if is_so]


def _is_place(rendezvous: str) -> bool:
    host, _, port = rendezvous.rpartition(":")
    return bool(host) and port.isdigit()


def _of_features(settings: FeatureCacheSettings) -> dict[str, bool]:
    limit = settings.limit_bytes
    return {
        "features.memory_bytes: must be at least 0": settings.memory_bytes < 0,
        "features.limit_bytes: must be at least 0, or null": limit is not None and limit < 0,
        "features.spare_share: must be between 0 and 1": not 0 <= settings.spare_share <= 1,
    }


def check_experts(experts: int, size: int) -> None:
    """Hold `expert_parallel` to a mixture's experts; without a mixture there are none.

    Raises:
        ConfigError: there are too few of them.
    """
    if experts < size > 1:
        raise ConfigError(
            f"{experts} experts cannot be spread over {size} ranks.",
            cause="`expert_parallel` in machine.yaml spreads them, and each rank of a group holds "
            "one at least; `assembly.slots` and `model.sparse_layers` in params.yaml say how many "
            "there are.",
            remedy="lower `expert_parallel` in machine.yaml.",
        )


_CENTURY_DAYS = 36_500


def retention_problems(settings: RetentionSettings) -> list[str]:
    """Return what is wrong with rules of retention, wherever they were given."""
    return [problem for problem, is_so in _of_retention(settings).items() if is_so]


def _of_retention(settings: RetentionSettings) -> dict[str, bool]:
    return {
        "retention.versions: must be at least 0": settings.versions < 0,
        "retention.champions: must be at least 1, the champion of today": settings.champions < 1,
        "retention.days: must be between 0 and 36500": not 0 <= settings.days <= _CENTURY_DAYS,
    }
