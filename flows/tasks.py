"""The tasks of a flow: one stage, registration, the gate. No task result is cached by Prefect."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from threading import Semaphore

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed

from flows.dvc import run_stage
from flows.plan import PlannedStage
from uni_moe.artifacts import Layout
from uni_moe.config import load_params
from uni_moe.errors import ConfigError, StageError
from uni_moe.registry import write
from uni_moe.registry.gate import Verdict


def _workers() -> int:
    told = os.environ.get("UNI_MOE_WORKERS", "")
    if not told:
        return os.cpu_count() or 1
    if not told.isdecimal() or int(told) < 1:
        raise ConfigError(
            f"UNI_MOE_WORKERS is {told!r}.",
            cause="it says how many stages run side by side, a whole number of at least 1.",
            remedy="correct or unset it.",
        )
    return int(told)


_SEATS = Semaphore(_workers())


@task(persist_result=False, task_run_name="{stage.name}")
def run_one(stage: PlannedStage, workspace: str, reason: str) -> State[None] | None:
    """Run one stage by DVC, which is the only cache there is; a failed one carries its error."""
    environment = {"UNI_MOE_REASON": reason, "UNI_MOE_FLOW_RUN": str(flow_run.get_id())}
    try:
        with _SEATS:
            run_stage(
                Path(workspace), stage.name, environment=environment, say=get_run_logger().info
            )
    except StageError as error:
        return Failed(message=error.what.partition("\n")[0], data=error)
    return None


@task(persist_result=False)
def register(workspace: str, reason: str) -> write.Candidate:
    """Put the candidate into the store and the registry."""
    return write.register(Layout(Path(workspace)), reason=reason, who=getpass.getuser())


@task(persist_result=False)
def promote_if_better(workspace: str, candidate: write.Candidate) -> Verdict:
    """Let the gate compare the candidate with the champion."""
    layout = Layout(Path(workspace))
    return write.promote_if_better(layout, candidate, load_params(layout.params).gate)


@task(persist_result=False)
def index(workspace: str) -> dict[str, int]:
    """Import all cards and run folders into the database."""
    return write.index(Layout(Path(workspace)))
