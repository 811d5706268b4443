"""The one door to DVC: its graph, its status, and running one stage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from flows.plan import Plan, make_plan
from uni_moe.errors import ConfigError, StageError

LAST_LINES = 15
_ADVICE = (
    "To track",
    "To enable",
    "Use `dvc",
    "\tgit add",
    "\tdvc config",
    "Generating lock",
    "Updating lock",
)


def plan_stages(root: Path) -> Plan:
    """Say what must run in a workspace: one look at the graph, one status call.

    Raises:
        ConfigError: the folder is no workspace, or dvc.yaml cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            graph = repo.index.graph
            parents = {
                stage.name: [parent.name for parent in graph.successors(stage)]
                for stage in graph.nodes
            }
            # Seen from another folder, dvc puts the path of dvc.yaml before a stage's name.
            status = {name.rpartition(":")[2]: found for name, found in repo.status().items()}
            return make_plan(parents, status)
    except DvcException as error:
        raise ConfigError(
            f"{root} has no graph that can be read: {error}",
            cause="the folder is no workspace, or dvc.yaml or params.yaml has a mistake.",
            remedy="make a workspace with `uni-moe new FOLDER`, or mend the file named above.",
        ) from error


def run_stage(
    root: Path, name: str, *, environment: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """Run one stage by `dvc repro` in a process group of its own; nothing of it outlives us.

    Raises:
        StageError: the stage failed; its last lines are in the error.
    """
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", name]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with subprocess.Popen(
        command,
        cwd=root,
        env={**os.environ, "TQDM_MININTERVAL": "10", "PATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            last = _follow(process, say)
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if code != 0:
        raise StageError(
            f"The stage {name} failed. Its last lines:\n    " + "\n    ".join(last),
            cause="the lines above say it.",
            remedy=f"mend it, then give the same command again; or look closer with "
            f"`uni-moe {name}`.",
        )


def _follow(process: subprocess.Popen[str], say: Callable[[str], None]) -> list[str]:
    """Pass on every line but dvc's advice, and keep the last ones."""
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=LAST_LINES)
    for raw in process.stdout:
        line = raw.rstrip()
        if line and not line.startswith(_ADVICE):
            last.append(line)
            say(line)
    return list(last)
