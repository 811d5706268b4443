"""The flow `retrain`: raw samples in, judged model out."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Semaphore

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.dvc import plan_stages, run_stage
from flows.plan import Plan, PlannedStage
from uni_moe.artifacts import Layout
from uni_moe.config import load_params
from uni_moe.errors import StageError
from uni_moe.registry import write
from uni_moe.registry.gate import Verdict

_SEATS = Semaphore(int(os.environ.get("UNI_MOE_WORKERS", min(2, os.cpu_count() or 1))))


@flow(
    name="retrain",
    task_runner=ThreadPoolTaskRunner(max_workers=64),  # type: ignore[arg-type] # generic by mistake
)
def retrain(workspace: str, reason: str) -> Verdict | State[Verdict]:
    """Run what must run, register the candidate, promote it if it is better.

    Stop anywhere; a second run goes on there. A broken contract stops the road.
    """
    failures = run_stages(plan_stages(Path(workspace)), workspace, reason)
    if failures:
        return failed(failures)
    candidate = register(workspace, reason)
    return promote_if_better(workspace, candidate)


def run_stages(plan: Plan, workspace: str, reason: str) -> list[StageError]:
    """Run a task for each stage, side by side where the graph allows; return what failed.

    What does not depend on a failed stage still runs to its end.
    """
    futures: dict[str, PrefectFuture[None]] = {}
    for stage in plan.stages:
        after = [futures[name] for name in stage.after]
        futures[stage.name] = run_one.with_options(name=stage.name).submit(  # type: ignore[call-overload]
            stage, workspace, reason, wait_for=after
        )
    for future in futures.values():
        future.wait()
    results: list[object] = [future.result(raise_on_failure=False) for future in futures.values()]
    return [result for result in results if isinstance(result, StageError)]


@task(persist_result=False)
def run_one(stage: PlannedStage, workspace: str, reason: str) -> State[None] | None:
    """Run one stage by DVC, which is the only cache there is."""
    environment = {"UNI_MOE_REASON": reason, "UNI_MOE_FLOW_RUN": str(flow_run.get_id())}
    say = get_run_logger().info
    with _SEATS:
        try:
            run_stage(Path(workspace), stage.name, environment=environment, say=say)
        except StageError as error:
            return Failed(data=error, message=error.what.splitlines()[0])
    return None


def failed(failures: list[StageError]) -> State[Verdict]:
    """Return the flow's end where stages failed: one error that tells all of them."""
    first = failures[0]
    what = "\n".join(failure.what for failure in failures)
    error = StageError(what, cause=first.cause, remedy=first.remedy)
    return Failed(data=error, message=f"{len(failures)} stage(s) failed")


@task
def register(workspace: str, reason: str) -> write.Candidate:
    """Put the candidate into the store and the registry."""
    layout = Layout(Path(workspace))
    write.index(layout)
    return write.register(layout, reason=reason, who=os.environ.get("USER", "unknown"))


@task
def promote_if_better(workspace: str, candidate: write.Candidate) -> Verdict:
    """Let the gate compare the candidate with the champion."""
    layout = Layout(Path(workspace))
    verdict = write.promote_if_better(layout, candidate, load_params(layout.params).gate)
    write.index(layout)
    return verdict
