"""A Slurm cluster of two nodes on loopback: its real daemons, in a folder of a test."""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.stores.servers import free_ports

DAEMONS = ("munged", "slurmctld", "slurmd")
PATIENCE_S = 30
_NODES = ("one", "two")
_SETTINGS = """\
ClusterName=little
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={socket}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldPidFile={folder}/slurmctld.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
NodeName={names} NodeHostname=localhost NodeAddr=127.0.0.1 Port={nodes} CPUs=1
PartitionName=all Nodes={names} Default=YES State=UP
"""


def missing() -> list[str]:
    """Return which daemons are not installed here."""
    return [name for name in DAEMONS if shutil.which(name) is None]


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start the daemons; give the environment in which srun finds them; stop them."""
    first = free_ports(1 + len(_NODES))
    (folder / "state").mkdir()
    (folder / "socket").mkdir(mode=0o755)
    (folder / "key").mkdir(mode=0o700)
    key, socket = folder / "key" / "key", folder / "socket" / "socket"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    file = folder / "slurm.conf"
    file.write_text(
        _SETTINGS.format(
            controller=first,
            socket=socket,
            folder=folder,
            names=",".join(_NODES),
            nodes=",".join(str(first + 1 + i) for i in range(len(_NODES))),
        )
    )
    paths = {
        "--key-file": key,
        "--socket": socket,
        "--pid-file": folder / "socket" / "pid",
        "--log-file": folder / "key" / "log",
        "--seed-file": folder / "key" / "seed",
    }
    words = [word for name, path in paths.items() for word in (name, str(path))]
    environment = {**os.environ, "SLURM_CONF": str(file)}
    with ExitStack() as started:
        start = [["munged", "--foreground", "--force", *words], ["slurmctld", "-D"]]
        for command in (*start, *(["slurmd", "-D", "-N", name] for name in _NODES)):
            started.enter_context(_daemon(command, folder, environment))
        _wait_until_idle(environment)
        yield environment


@contextmanager
def _daemon(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with (folder / "daemons.out").open("ab") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_idle(environment: dict[str, str]) -> None:
    """Wait until both nodes can be given work."""
    deadline = time.monotonic() + PATIENCE_S
    command = ["sinfo", "--noheader", "--states", "idle", "--format", "%D"]
    while time.monotonic() < deadline:
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if told.stdout.strip() == str(len(_NODES)):
            return
        time.sleep(0.2)
    raise AssertionError(f"Slurm's nodes do not answer: {told.stdout}{told.stderr}")
