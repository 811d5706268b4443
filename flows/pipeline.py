"""The flow `retrain`: raw samples in, judged model out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger, tags
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.dvc import begin_stages, plan_stages, stop_stages
from flows.embedded import TAG
from flows.plan import Plan
from flows.tasks import index, judge_champion, promote_if_better, push, register, run_one
from flows.unsent import expect_push
from uni_moe.alone import in_turn
from uni_moe.artifacts import Layout
from uni_moe.errors import ContractError, StageError, StoreError, UniMoeError, bullets
from uni_moe.registry import indexing
from uni_moe.registry.gate import Verdict
from uni_moe.runs import start_run

_KEPT = ("params.yaml", "dvc.lock")
MOST_STAGES = 256  # threads that wait for their inputs; how many work at a time is UNI_MOE_WORKERS
RUNNER: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=MOST_STAGES)


@flow(name="retrain", task_runner=RUNNER, persist_result=False)  # type: ignore[arg-type] # generic by mistake
def retrain(workspace: str, reason: str) -> Verdict | State[Verdict]:
    """Run what must run, register the candidate, promote it if it is better.

    Stop anywhere; a second run goes on there. A broken contract stops the road.
    """
    layout = Layout(Path(workspace))
    try:
        with indexed(layout):
            return recorded_road(plan_stages(layout.root), layout, reason, {})
    except UniMoeError as error:
        return ended(error)


def retrain_here(workspace: str, reason: str) -> Verdict:
    """Run the flow, so that a server ends it where it was killed.

    Raises:
        UniMoeError: stages failed, or the copy to the remote did not arrive.
    """
    with tags(TAG):
        return cast("Verdict", retrain(workspace, reason))


@contextmanager
def indexed(layout: Layout) -> Iterator[None]:
    """Let the index know at the end what an earlier flow did not tell it, and how runs ended."""
    try:
        yield
    finally:
        try:
            indexing.index(layout)
        except UniMoeError as error:  # the next import knows as well
            get_run_logger().warning("the index does not know yet what has ended: %s", error.what)


def _no_matter(verdict: Verdict) -> None:
    """Leave a verdict to who asked for it."""


def recorded_road(
    plan: Plan,
    layout: Layout,
    reason: str,
    changes: Mapping[str, Any],
    judged: Callable[[Verdict], None] = _no_matter,
) -> Verdict:
    """Go the road in a run of its own, which keeps the plan, and params and lock.

    Params are kept as they begin, for a run that is killed, and both as they end. `judged` is told
    the verdict before anything is copied to the remote.

    Raises:
        UniMoeError: stages failed, or the copy to the remote did not arrive.
    """
    told = {"reason": reason, "flow_run": str(flow_run.get_id())}
    with start_run(layout, "retrain", {"changes": dict(changes)}, **told) as run:
        run.event("plan", **plan.to_json())
        shutil.copy(layout.params, run.folder)
        try:
            return road(plan, str(layout.root), reason, judged)
        finally:
            for file in (layout.root / name for name in _KEPT):
                if file.is_file():
                    shutil.copy(file, run.folder)


def road(
    plan: Plan, workspace: str, reason: str, judged: Callable[[Verdict], None] = _no_matter
) -> Verdict:
    """Go the whole road, inside a flow.

    Raises:
        UniMoeError: stages failed, or the copy to the remote did not arrive.
    """
    failures = run_stages(plan, workspace, reason)
    if failures:
        raise failed(failures)
    layout = Layout(Path(workspace))
    with in_turn(layout.home, "landing"):  # one at a time registers and pushes
        expect_push(layout)
        candidate = register(workspace, reason)
        judge_champion(workspace, reason, candidate)
        verdict = promote_if_better(workspace, reason, candidate)
        judged(verdict)
        index(workspace)
        pushed = push(workspace, return_state=True)
    trouble: object = pushed.result(raise_on_failure=False)
    if isinstance(trouble, Exception):
        raise not_pushed(trouble, verdict) if isinstance(trouble, UniMoeError) else trouble
    return verdict


def send(workspace: str) -> None:
    """Copy to the remote what an earlier flow made and did not send, inside a flow.

    Raises:
        UniMoeError: the copy did not arrive.
    """
    with in_turn(Layout(Path(workspace)).home, "landing"):
        pushed = push(workspace, return_state=True)
    trouble: object = pushed.result(raise_on_failure=False)
    if isinstance(trouble, Exception):
        raise trouble


def ended(error: UniMoeError) -> State[Verdict]:
    """Return the end of a flow that failed: its caller gets the error, its log one line."""
    return Failed(data=error, message=error.what.partition("\n")[0])


def run_stages(plan: Plan, workspace: str, reason: str) -> list[StageError]:
    """Run a task for each stage, side by side where the graph allows; return what failed.

    What does not depend on a failed stage still runs to its end.
    """
    begin_stages()
    futures: dict[str, PrefectFuture[None]] = {}
    try:
        for stage in plan.stages:
            after = [futures[name] for name in stage.after]
            futures[stage.name] = run_one.submit(  # type: ignore[call-overload] # wait_for is there
                stage, workspace, reason, wait_for=after
            )
        wait(list(futures.values()))
    except BaseException:
        stop_stages()
        raise
    return _troubles(futures)


def _troubles(futures: Mapping[str, PrefectFuture[None]]) -> list[StageError]:
    """Return why stages are not complete; those that only waited for a failed one say nothing."""
    waiting = [name for name, future in futures.items() if not future.state.is_final()]
    found: list[StageError] = []
    for name, future in futures.items():
        if name in waiting or future.state.is_completed():
            continue
        result: object = future.result(raise_on_failure=False)
        if not isinstance(result, StageError):
            result = StageError(
                f"{name}: {type(result).__name__}: {result}",
                cause="the stage could not be started or followed; it did not fail by itself.",
                remedy="look at memory, open files and the Prefect server, then run again.",
            )
        found.append(result)
    if waiting and not found:
        found.append(
            StageError(
                f"These stages were never begun: {', '.join(waiting)}.",
                cause="the flow ended before their turn came.",
                remedy="give the same command again; it goes on from here.",
            )
        )
    return found


def not_pushed(trouble: UniMoeError, verdict: Verdict) -> StoreError:
    """Return the error of a flow that did its work, but whose copy did not arrive."""
    said = "promoted" if verdict.promoted else "not promoted"
    return StoreError(
        f"The model is registered and judged ({said}), but its copy did not arrive: {trouble.what}",
        cause=trouble.cause,
        remedy=f"{trouble.remedy} The command that copies alone is `uni-moe push`.",
    )


def failed(failures: Sequence[StageError]) -> StageError:
    """Return one error that tells of all stages that failed.

    It ends as a broken contract where one of them is.
    """
    if len(failures) == 1:
        return failures[0]
    error = StageError(
        f"{len(failures)} stages failed:{bullets([str(failure) for failure in failures])}",
        cause="each says its own above.",
        remedy="mend them, then give the same command again; it goes on from here.",
    )
    codes = [failure.exit_code for failure in failures]
    broken = ContractError.exit_code
    error.exit_code = broken if broken in codes else codes[0]
    return error
