"""The door to a Prefect server: what a workspace registers there, asks of it and tells it.

Prefect's settings must stand before this is imported: see `flows.embedded`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from httpx import HTTPError
from prefect.automations import AutomationCore, EventTrigger, Posture, ResourceSpecification
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import (
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
    FlowRun,
    StateType,
)
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from flows.deployments import retrain_apart
from flows.embedded import HEARTBEAT, TAG
from flows.schedule import Pool, Schedule, name_of, pool_of
from flows.tasks import make_slots
from uni_moe.artifacts import Layout
from uni_moe.errors import ConfigError, StageError
from uni_moe.machine import Machine

CRON, BY_HAND = "by-schedule", "by-hand"
SILENT_S = 54  # since the last heartbeat; a server that looks every 5 s acts within a minute
_ALIVE = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")
_BEAT = "prefect.flow-run.heartbeat"


@dataclass(frozen=True)
class Working:
    """A flow run that a server takes for alive: its process, if known, and since when."""

    id: UUID
    name: str
    pid: int | None
    silent_s: float


@dataclass(frozen=True)
class Fallen:
    """A flow run that a server calls crashed, and why."""

    id: UUID
    name: str
    why: str


def set_up(home: Layout, schedule: Schedule, machine: Machine, *, shared: bool) -> None:
    """Register a workspace: its pool, deployments, the GPU's slots, the end of zombies.

    Doing it again changes what has changed. On a server that is shared nothing of another
    workspace's is taken over.

    Raises:
        ConfigError: the server refuses the schedule, or knows another workspace by this name.
    """
    with get_client(sync_client=True) as client:
        if shared:
            _check_own(client, home, schedule)
        _pool(client, pool_of(schedule, home.root), schedule.pool)
        _zombies(client)
    if machine.gpu_slots is not None:
        make_slots(machine.gpu_slots)
    _deploy(home, schedule)


def submit(home: Layout, schedule: Schedule, told: Mapping[str, Any]) -> FlowRun:
    """Ask for a run of a workspace's deployment now.

    Raises:
        StageError: the server does not know it, or does not answer.
    """
    name = _full(BY_HAND, home, schedule)
    try:
        with get_client(sync_client=True) as client:
            found = client.read_deployment_by_name(name)
            return client.create_flow_run_from_deployment(found.id, parameters=dict(told))
    except ObjectNotFound as error:
        raise StageError(
            f"The Prefect server knows no deployment {name}.",
            cause="this workspace was not registered there.",
            remedy="start `uni-moe up` in the workspace, with PREFECT_API_URL if it is elsewhere.",
        ) from error
    except HTTPError as error:
        raise StageError(
            f"The Prefect server does not answer: {type(error).__name__}.",
            cause="it was stopped, or PREFECT_API_URL names another place.",
            remedy="start it, or unset PREFECT_API_URL: the retraining then runs here.",
        ) from error


def state_of(run: UUID) -> tuple[str, str, bool]:
    """Return what a flow run is at, its message, and whether it has ended."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
    if state is None:
        return "unknown", "", False
    return state.name or state.type.value, state.message or "", state.is_final()


def working() -> list[Working]:
    """Return every flow run of our deployments that is said to be at work."""
    return [_working(run) for run in _runs(_ALIVE)]


def fallen(home: Layout) -> list[Fallen]:
    """Return the latest flow runs of a workspace's deployments that crashed, whoever said so.

    There are as many as a server tells at once, 200 where it was not set otherwise.
    """
    return [
        Fallen(run.id, run.name, (run.state and run.state.message) or "")
        for run in _runs((StateType.CRASHED,))
        if run.parameters.get("home") == str(home.root)
    ]


def _runs(states: Sequence[StateType]) -> list[FlowRun]:
    """Return the latest flow runs of our deployments that are in one of some states."""
    ours = FlowFilter.model_validate({"name": {"any_": [retrain_apart.name]}})
    those = FlowRunFilter.model_validate({"state": {"type": {"any_": [*states]}}})
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=ours, flow_run_filter=those, sort=FlowRunSort.EXPECTED_START_TIME_DESC
        )
    return [run for run in runs if run.deployment_id is not None]


def _working(run: FlowRun) -> Working:
    pid = run.infrastructure_pid or ""
    since = run.state.timestamp if run.state is not None else run.created
    silent_s = (datetime.now(UTC) - (since or datetime.now(UTC))).total_seconds()
    return Working(run.id, run.name, int(pid) if pid.isdecimal() else None, silent_s)


def declare_dead(run: UUID, why: str) -> None:
    """Tell the server that a flow run has crashed."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Crashed(message=why), force=True)


def _pool(client: SyncPrefectClient, name: str, pool: Pool) -> None:
    template = ProcessWorker.get_default_base_job_template() if pool.type == "process" else {}
    wanted = WorkPoolCreate(
        name=name,
        type=pool.type,
        base_job_template=template,
        concurrency_limit=pool.at_once,
    )
    try:
        known = client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(wanted)
        return
    if known.type != pool.type:
        raise ConfigError(
            f"The work pool {name} is of the type {known.type}.",
            cause=f"schedule.yaml says {pool.type}; a pool keeps its type.",
            remedy="take another name in `pool.name`.",
        )
    if pool.type == "process":
        client.create_work_pool(wanted, overwrite=True)


def _name(way: str, home: Layout, schedule: Schedule) -> str:
    return f"{way}@{name_of(schedule, home.root)}"


def _full(way: str, home: Layout, schedule: Schedule) -> str:
    return f"{retrain_apart.name}/{_name(way, home, schedule)}"


def _check_own(client: SyncPrefectClient, home: Layout, schedule: Schedule) -> None:
    for way in (CRON, BY_HAND):
        name = _full(way, home, schedule)
        try:
            told = client.read_deployment_by_name(name).parameters["home"]
        except ObjectNotFound:
            continue
        if told != str(home.root):
            raise ConfigError(
                f"The Prefect server has the deployment {name} of another workspace, {told}.",
                cause="both have one name, and would take over each other's schedule.",
                remedy="say another `name:` in schedule.yaml; or, if this workspace was moved, end "
                f"the old one with `prefect deployment delete '{name}'`.",
            )


def _deploy(home: Layout, schedule: Schedule) -> None:
    """Register the two ways to a retraining. A tick is passed over while the one before works."""
    schedules = [] if schedule.cron is None else [_cron(schedule.cron, schedule.timezone)]
    once = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    ways = {CRON: ("schedule", schedules, once), BY_HAND: ("by hand", [], None)}
    for way, (reason, times, limit) in ways.items():
        deployment = retrain_apart.to_deployment(
            _name(way, home, schedule),
            schedules=times,
            concurrency_limit=limit,
            parameters={"home": str(home.root), "reason": reason},
            tags=[TAG],
            work_pool_name=pool_of(schedule, home.root),
            job_variables=_variables(home, schedule.pool),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        cast("RunnerDeployment", deployment).apply()


def _variables(home: Layout, pool: Pool) -> dict[str, Any]:
    """Return what a worker is told beside the flow itself, however it was started."""
    found: dict[str, Any] = {"env": {**pool.environment, **HEARTBEAT}}
    if pool.type == "process":
        command = shlex.join([sys.executable, "-m", "prefect.engine"])
        found |= {"command": command, "working_dir": str(home.root)}
    return found


def _cron(line: str, timezone: str) -> CronSchedule:
    try:
        return CronSchedule(cron=line, timezone=timezone)
    except ValueError as error:
        raise ConfigError(
            f"schedule.yaml: {line!r} is no cron line.",
            cause="its five fields are minute, hour, day of the month, month, day of the week.",
            remedy="correct `cron`, say to `0 3 * * *`.",
        ) from error


def _zombies(client: SyncPrefectClient) -> None:
    """Let the server end flow runs of ours whose heart has stopped, wherever their worker was.

    Others on the server may beat more seldom, and are left alone. The automation stays as it is
    where nothing has changed: an update makes the server forget whom it listens for.
    """
    wanted = AutomationCore(
        name="uni-moe: crashed, for no heartbeat",
        trigger=EventTrigger(
            after={_BEAT},
            expect={_BEAT, *(f"prefect.flow-run.{end}" for end in _ENDS)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                {"prefect.resource.id": [f"prefect.tag.{TAG}"], "prefect.resource.role": ["tag"]}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENT_S),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message="its heartbeat stopped",
                force=False,
            )
        ],
    )
    known = client.read_automations_by_name(wanted.name)
    for one in known:
        if (one.trigger, one.actions) != (wanted.trigger, wanted.actions):
            told = wanted.model_dump(exclude={"owner_resource"}) | {"enabled": one.enabled}
            whole = AutomationCore.model_validate(told)  # defaults are sent only where they are set
            client.update_automation(one.id, whole)
    if not known:
        client.create_automation(wanted)
