"""Starts a stage on as many processes and nodes as the machine profile says.

The stage's own command becomes the launcher's; its processes are the same command again, told
their rank by the environment.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from uni_moe import leash
from uni_moe.errors import StageError
from uni_moe.machine import Machine

_RUN_ID = "UNI_MOE_LAUNCH"  # in the environment of every process that was launched
_TORCHRUN, _DEEPSPEED = "torch.distributed.run", "deepspeed.launcher.runner"
_PROGRAM = "uni_moe"


def is_launched() -> bool:
    """Return whether this process is one of several that a launcher started."""
    return _RUN_ID in os.environ


def is_follower() -> bool:
    """Return whether another process of the same launch writes what all make."""
    return is_launched() and os.environ.get("RANK", "0") != "0"


def prefix() -> str:
    """Return what stands before a launched process's words, so that a reader knows who speaks."""
    return f"[rank {os.environ.get('RANK', '?')}] " if is_launched() else ""


def command_of(machine: Machine, words: Sequence[str]) -> list[str]:
    """Return the module and arguments that start a stage; `srun` stands before both on Slurm.

    Args:
        machine: the profile; its launcher is not `none`.
        words: the stage's own command line, without the program's name.
    """
    if machine.launcher == "deepspeed":
        where = (
            ["--hostfile", machine.hostfile, "--num_nodes", str(machine.nodes)]
            if machine.hostfile
            else []
        )
        count = ["--num_gpus", str(machine.processes)]
        return [_DEEPSPEED, *where, *count, "--module", _PROGRAM, *words]
    meet = (
        ["--standalone"]
        if machine.nodes == 1
        else [
            *("--nnodes", str(machine.nodes), "--rdzv-backend", "c10d"),
            *("--rdzv-endpoint", str(machine.rendezvous), "--rdzv-id", _PROGRAM),
        ]
    )
    count = ["--nproc-per-node", str(machine.processes), "--max-restarts", "0"]
    return [_TORCHRUN, *meet, *count, "--module", _PROGRAM, *words]


def shell_words(machine: Machine, words: Sequence[str]) -> list[str]:
    """Return the whole command line, as a person would type it on one node."""
    python = [sys.executable, "-m", *command_of(machine, words)]
    if machine.launcher != "slurm":
        return python
    nodes = ["--nodes", str(machine.nodes), "--ntasks-per-node", "1"]
    return ["srun", *nodes, *machine.slurm, *python]


def launch(machine: Machine, words: Sequence[str], root: Path) -> None:
    """Run a stage by its launcher, and wait for its end; nothing of it outlives us.

    Raises:
        StageError: a process ended with an error; what it said stands above.
    """
    environment = {_RUN_ID: secrets.token_hex(4)}
    if machine.nodes == 1:
        environment["GLOO_SOCKET_IFNAME"] = "lo"  # nobody outside is spoken to
    if machine.launcher == "slurm":
        process = subprocess.Popen(
            shell_words(machine, words), cwd=root, env={**os.environ, **environment}, text=True
        )
    else:
        module, *rest = command_of(machine, words)
        process = leash.start(module, rest, folder=root, environment=environment, output=sys.stderr)
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if code:
        raise StageError(
            f"The processes of `uni-moe {' '.join(words)}` ended with code {code}.",
            cause="one of them stopped; the first error above says why, the others followed it.",
            remedy="mend that, then give the same command again: it goes on from the last state.",
        )
