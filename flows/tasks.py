"""The tasks of a flow: one stage, registration, the gate. No task result is cached by Prefect."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Semaphore

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed

from flows.dvc import run_module, run_stage
from flows.plan import PlannedStage
from flows.remote import push_if_set
from uni_moe.artifacts import Layout
from uni_moe.config import load_params
from uni_moe.errors import ConfigError, StageError, UniMoeError
from uni_moe.registry import indexing, promoting, write
from uni_moe.registry.gate import Verdict
from uni_moe.registry.graphs import keep_graph
from uni_moe.runs import user


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
    """Put the candidate into the store and the registry, with what it was made by."""
    layout = Layout(Path(workspace))
    run = str(flow_run.get_id())
    candidate = write.register(layout, reason=reason, who=user(), flow_run=run)
    keep_graph(layout)
    return candidate


@task(persist_result=False)
def judge_champion(workspace: str, reason: str, candidate: write.Candidate) -> None:
    """Judge the champion on the items of today, where its report is about others.

    Where it cannot be judged, say because it reads fewer modalities, the gate says what that means.
    """
    logger = get_run_logger()
    if not write.must_judge_again(Layout(Path(workspace)), candidate):
        return
    logger.info("the champion was judged on other items; it is judged on those of today")
    environment = {"UNI_MOE_REASON": reason, "UNI_MOE_FLOW_RUN": str(flow_run.get_id())}
    try:
        run_module(
            "uni_moe",
            ["judge"],
            Path(workspace),
            name="judge",
            environment=environment,
            say=logger.info,
        )
    except StageError as error:
        logger.warning("the champion cannot be judged: %s", error)


@task(persist_result=False)
def promote_if_better(workspace: str, reason: str, candidate: write.Candidate) -> Verdict:
    """Let the gate compare the candidate with the champion."""
    layout = Layout(Path(workspace))
    rules = load_params(layout.params).gate
    run = str(flow_run.get_id())
    return promoting.promote_if_better(layout, candidate, rules, reason=reason, flow_run=run)


@task(persist_result=False)
def index(workspace: str) -> dict[str, int]:
    """Import all cards and run folders into the database."""
    return indexing.index(Layout(Path(workspace)))


@task(persist_result=False)
def push(workspace: str) -> UniMoeError | None:
    """Copy data, models and records to the remote, if one is set; return why it could not be."""
    try:
        push_if_set(Path(workspace), get_run_logger().info)
    except UniMoeError as error:
        return error
    return None
