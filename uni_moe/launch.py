"""Starts a stage on as many processes and nodes as the machine profile says.

The stage's own command becomes the launcher's; its processes are the same command again, told
their rank by the environment.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from uni_moe import leash
from uni_moe.errors import ConfigError, StageError
from uni_moe.machine import Machine

_TORCHRUN, _DEEPSPEED = "torch.distributed.run", "deepspeed.launcher.runner"
_PROGRAM = "uni_moe"
ABREAST = "UNI_MOE_ABREAST"  # in the environment: how many trainings share this machine
_SIZES_HERE = ("LOCAL_WORLD_SIZE", "LOCAL_SIZE")  # torchrun's word and DeepSpeed's
_FIRST_ENDS_S = 5.0
# What torch says of a rank that does not answer: an error of this name, or a text with this.
_NO_ANSWER, _LINE = "DistError", "gloo/transport"
_ENDS_S = 40.0  # torchrun itself gives its ranks 30 s


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
    """Return this process's place, as its launcher says in the environment; alone without one."""
    told = os.environ.get
    return World(int(told("RANK", "0")), int(told("WORLD_SIZE", "1")), int(told("LOCAL_RANK", "0")))


def is_launched() -> bool:
    """Return whether a launcher started this process: ours, or one that a person typed."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def size_of(machine: Machine) -> int:
    """Return how many processes train together: as many as were started, else the profile's."""
    return here().size if is_launched() else machine.world


def size_here(machine: Machine) -> int:
    """Return how many of them run on this machine, by the launcher's word or the profile's."""
    told = next((os.environ[name] for name in _SIZES_HERE if name in os.environ), None)
    return int(told) if is_launched() and told is not None else machine.processes


def abreast() -> int:
    """Return how many trainings may run on this machine at once, as a flow tells its stages."""
    return int(os.environ.get(ABREAST, "1"))


def prefix() -> str:
    """Return what stands before a launched process's words, so that a reader knows who speaks."""
    return f"[rank {here().rank}] " if is_launched() else ""


class ToldToEnd(KeyboardInterrupt):
    """A launched process was told to end, mostly because another rank ended first."""


def end_in_order() -> None:
    """Let a launched process that is told to end do so as one that a person stops: by its books."""
    signal.signal(signal.SIGTERM, _raise_told_to_end)


def _raise_told_to_end(*_: object) -> None:
    raise ToldToEnd


def told_to_end() -> StageError:
    """Return what a launched process says that was told to end."""
    return StageError(
        f"Rank {here().rank} was told to end before it was done.",
        cause="another rank ended first, by an error or because it was killed, and the launcher "
        "ends all others then; or the launcher itself was stopped.",
        remedy="see what the rank that ended first says, mend that, then give the same command "
        "again: it goes on from the last state.",
    )


def of_others(error: BaseException) -> StageError | None:
    """Return what a rank is told when another one went while it waited; None of other errors."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if here().size == 1 or not (_NO_ANSWER in kinds or _LINE in str(error)):
        return None
    said = str(error).strip().partition("\n")[0]
    return StageError(
        f"Another rank went while rank {here().rank} waited for it: {said}",
        cause="it ended with an error of its own, it was killed, or its node is out of reach.",
        remedy="see what the rank that ended first says, mend that, then give the same command "
        "again: it goes on from the last state.",
    )


def end_after_the_first() -> None:
    """Wait a little with one's end: the first rank has the samples' names and writes the record.

    Whoever ends first makes the launcher end all others. Alone, and on the first, nothing waits.
    """
    if not here().is_first:
        with suppress(KeyboardInterrupt):  # it has ended, and the launcher tells us to
            time.sleep(_FIRST_ENDS_S)


def command_of(machine: Machine, words: Sequence[str]) -> list[str]:
    """Return the module and arguments that start a stage; `srun` stands before both on Slurm.

    Args:
        machine: the profile; its launcher is not `none`.
        words: the stage's own command line, without the program's name.
    """
    if machine.launcher == "deepspeed":
        where = _flags({"--hostfile": machine.hostfile, "--num_nodes": machine.nodes})
        where = where if machine.hostfile else []
        if machine.rendezvous:
            host, _, port = machine.rendezvous.rpartition(":")
            where += ["--master_addr", host, "--master_port", port]
        count = ["--num_gpus", str(machine.processes), "--no_local_rank"]
        return [_DEEPSPEED, *where, *count, "--module", _PROGRAM, *words]
    meet = ["--standalone"]
    if machine.nodes > 1:
        told = {"--rdzv-backend": "c10d", "--rdzv-endpoint": machine.rendezvous}
        # Stages that meet at one place tell each other apart by it.
        meet = _flags({"--nnodes": machine.nodes, **told, "--rdzv-id": "-".join(words[-1:])})
    count = ["--nproc-per-node", str(machine.processes), "--max-restarts", "0"]
    return [_TORCHRUN, *meet, *count, "--module", _PROGRAM, *words]


def _flags(told: Mapping[str, object]) -> list[str]:
    return [word for name, value in told.items() for word in (name, str(value))]


def shell_words(machine: Machine, words: Sequence[str]) -> list[str]:
    """Return the whole command line, as a person would type it on one node."""
    python = [sys.executable, "-m", *command_of(machine, words)]
    if machine.launcher != "slurm":
        return python
    # The last word: a node whose launcher has failed ends the others, too.
    nodes = ["--nodes", str(machine.nodes), "--ntasks-per-node", "1", "--kill-on-bad-exit"]
    return ["srun", *nodes, *machine.slurm, *python]


def launch(machine: Machine, words: Sequence[str]) -> None:
    """Run a stage by its launcher, and wait for its end; nothing of it here outlives us.

    Raises:
        ConfigError: this machine lacks the program that starts other nodes.
        StageError: a process ended with an error; what it said stands above. Its own exit code is
            not known here.
    """
    _check_starter(machine)
    environment = {}
    if machine.nodes == 1 and sys.platform == "linux" and "GLOO_SOCKET_IFNAME" not in os.environ:
        environment["GLOO_SOCKET_IFNAME"] = "lo"  # nobody outside is spoken to
    if machine.launcher == "slurm":
        module, rest = __name__, shell_words(machine, words)
    else:
        module, *rest = command_of(machine, words)
    process = leash.start(
        module, rest, folder=Path.cwd(), environment=environment, output=sys.stderr
    )
    try:
        code = process.wait()
    except BaseException:
        leash.end(process, _ENDS_S)
        raise
    if code:
        raise StageError(
            f"The processes of `uni-moe {' '.join(words)}` ended with code {code}.",
            cause="one of them stopped; the first error above says why, the others followed it.",
            remedy="mend that, then give the same command again: it goes on from the last state.",
        )


def _check_starter(machine: Machine) -> None:
    many = machine.launcher == "deepspeed" and machine.nodes > 1
    starter = "srun" if machine.launcher == "slurm" else "pdsh" if many else None
    if starter is not None and shutil.which(starter) is None:
        raise ConfigError(
            f"The launcher {machine.launcher} needs the program {starter}, which is not here.",
            cause=f"`launcher` in machine.yaml says {machine.launcher}, for {machine.nodes} "
            "node(s).",
            remedy=f"start from a machine that has {starter}, or set `launcher: torchrun`.",
        )


def check_size(machine: Machine) -> None:
    """Hold the number of ranks that a launcher started to the profile's.

    Raises:
        ConfigError: they differ; every rank says so before it waits for another.
    """
    found = here().size
    if is_launched() and machine.launcher != "none" and found != machine.world:
        raise ConfigError(
            f"{found} processes were started, machine.yaml says {machine.world}.",
            cause="the launcher was given other numbers than `processes` and `nodes`.",
            remedy="start what `uni-moe launch PHASE --print` says, or change machine.yaml.",
        )


def check_alone(stage: str) -> None:
    """Hold a stage that is no training of many processes to one.

    Raises:
        ConfigError: the environment says that there are more.
    """
    found = here()
    if found.size > 1:
        raise ConfigError(
            f"{stage} runs in one process, and this is rank {found.rank} of {found.size}.",
            cause="a launcher started it, or RANK and WORLD_SIZE were left in the environment by "
            "one.",
            remedy="start it without a launcher, or `unset RANK WORLD_SIZE LOCAL_RANK` first.",
        )


if __name__ == "__main__":  # a program that is no Python module, on the leash
    raise SystemExit(subprocess.call(sys.argv[1:]))
