"""The tasks of a flow: one stage, registration, the gate. No task result is cached by Prefect.

A task is tried again only where the fault is outside: a remote that does not answer, or whose disk
is not mounted. A stage that failed stays failed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from threading import Semaphore

from prefect import get_run_logger, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists
from prefect.runtime import flow_run
from prefect.states import Failed

from flows.dvc import run_module, run_stage
from flows.plan import PlannedStage
from flows.remote import push_if_set
from flows.seats import told_of, workers
from flows.unsent import has_arrived
from uni_moe.artifacts import Layout
from uni_moe.config import load_params
from uni_moe.errors import StageError, UnreachableError
from uni_moe.machine import Machine, load_machine
from uni_moe.registry import indexing, promoting, write
from uni_moe.registry.gate import Verdict
from uni_moe.registry.graphs import keep_graph
from uni_moe.registry.known import last_word
from uni_moe.runs import user

_SEATS = Semaphore(workers())
GPU = "gpu"  # the slot that stages of all flows of a server take turns in
_ON_GPU = ("foundation", "align", "experts", "tune", "evaluate", "judge")
_LEASE_S = 60.0  # after which the slot of a killed flow is free again
_TRIES, _PAUSES_S = 2, [5.0, 30.0]


@task(persist_result=False, task_run_name="{stage.name}")
def run_one(stage: PlannedStage, workspace: str, reason: str) -> State[None] | None:
    """Run one stage by DVC, which is the only cache there is; a failed one carries its error."""
    environment = {"UNI_MOE_REASON": reason, "UNI_MOE_FLOW_RUN": str(flow_run.get_id())}
    environment |= told_of(stage)
    root = Path(workspace)
    machine = load_machine(root)
    try:
        with _SEATS, _slot(stage.name, machine):
            run_stage(
                root,
                stage.name,
                environment=environment,
                say=get_run_logger().info,
                limit_s=machine.stage_limit_s,
            )
    except StageError as error:
        return Failed(message=error.what.partition("\n")[0], data=error)
    return None


def _slot(stage: str, machine: Machine) -> AbstractContextManager[None]:
    """Return a stage's turn on the GPU, where machine.yaml says that stages take turns."""
    if machine.gpu_slots is None or stage.partition("@")[0] not in _ON_GPU:
        return nullcontext()
    make_slots(machine.gpu_slots)
    return concurrency(
        GPU,
        occupy=1,
        lease_duration=_LEASE_S,
        strict=True,
        raise_on_lease_renewal_failure=False,  # the server may be away for a while
    )


def make_slots(count: int) -> None:
    """Let a server know how many turns on the GPU there are at a time."""
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):  # made meanwhile
        client.upsert_global_concurrency_limit_by_name(GPU, count)


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
    machine = load_machine(Path(workspace))
    try:
        with _slot("judge", machine):
            run_module(
                "uni_moe",
                ["judge"],
                Path(workspace),
                name="judge",
                environment=environment,
                say=logger.info,
                limit_s=machine.stage_limit_s,
            )
    except StageError as error:
        logger.warning("the champion cannot be judged: %s", error)


@task(persist_result=False)
def promote_if_better(workspace: str, reason: str, candidate: write.Candidate) -> Verdict:
    """Let the gate compare the candidate with the champion, once by its home's rules of now."""
    layout = Layout(Path(workspace))
    rules = load_params(layout.home.params).gate
    known = last_word(layout, candidate.report, rules)
    if known is not None:  # a flow that was killed after it, or one beside this
        return known
    run = str(flow_run.get_id())
    return promoting.promote_if_better(layout, candidate, rules, reason=reason, flow_run=run)


@task(persist_result=False)
def index(workspace: str) -> dict[str, int]:
    """Import all cards and run folders into the database."""
    return indexing.index(Layout(Path(workspace)))


def _is_outside(task: object, task_run: object, state: State[None]) -> bool:  # noqa: ARG001 - Prefect's
    return isinstance(state.result(raise_on_failure=False), UnreachableError)


@task(
    persist_result=False,
    retries=_TRIES,
    retry_delay_seconds=_PAUSES_S,
    retry_condition_fn=_is_outside,
)
def push(workspace: str) -> None:
    """Copy data, models and records to the remote, if one is set."""
    push_if_set(Path(workspace), get_run_logger().info)
    has_arrived(Layout(Path(workspace)))
