"""The flow that a schedule runs, and a person by `uni-moe retrain`: in a workspace of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.apart import apart, changed_params
from flows.dvc import plan_stages
from flows.embedded import quiet_logs
from flows.failures import forget, is_known, remember
from flows.notify import of_error, of_verdict
from flows.outbox import keep
from flows.outbox import send as send_news
from flows.pipeline import RUNNER, ended, indexed, recorded_road, send
from flows.plan import Plan
from flows.unsent import is_unsent
from flows.untold import expect_verdict, is_kept, owed
from uni_moe.alone import end_with_starter
from uni_moe.artifacts import Layout
from uni_moe.config import load_params, parse_params
from uni_moe.errors import StageError, UniMoeError
from uni_moe.registry.clean import check_clean
from uni_moe.registry.database import check
from uni_moe.registry.gate import Verdict
from uni_moe.registry.known import is_judged
from uni_moe.registry.read import find
from uni_moe.yaml_text import parse_yaml

NOTHING = "nothing to do"
Start = Literal["scratch", "champion"]


@flow(name="retrain-apart", task_runner=RUNNER, persist_result=False)  # type: ignore[arg-type] # generic by mistake
def retrain_apart(
    home: str, reason: str, start: Start = "scratch", changes: dict[str, Any] | None = None
) -> Verdict | State[Any]:
    """Retrain beside a workspace, if anything is new since the last time; the result goes home.

    From the champion, tuning goes on from its weights, and its foundation, connectors and experts
    stay as they were. Stop anywhere; the next one goes on there. A worker that dies takes it along.
    """
    end_with_starter(launched="PREFECT__FLOW_RUN_ID" in os.environ)
    quiet_logs()
    layout, told = Layout(Path(home)), get_run_logger().warning
    asked = {"start": start, "changes": changes or {}}
    try:
        check(layout)  # before hours of training
        others = _begin(layout, start, changes or {}, told)
        with apart(layout, others) as space, indexed(space):
            verdict = _whatever_is_new(space, reason, others)
    except Exception as fault:
        error = fault if isinstance(fault, UniMoeError) else _unforeseen(fault)
        if is_known(layout, asked, error):
            told("still failing, and nothing has changed: people were told when it began")
        else:
            keep(layout, of_error(error, home, reason), told)
            remember(layout, asked, error)
        send_news(layout, told)
        if error is not fault:
            raise
        return ended(error)
    forget(layout, asked)
    send_news(layout, told)
    return Completed(message=NOTHING) if verdict is None else verdict


def _unforeseen(fault: Exception) -> StageError:
    """Return the error of a flow that was stopped by what no part of it says a word about."""
    return StageError(
        f"The retraining was stopped: {type(fault).__name__}: {fault}",
        cause="the machine or a server failed it, or this program has a mistake.",
        remedy="the worker's log has the lines where it was; the next tick tries again.",
    )


def _begin(
    layout: Layout, start: Start, changes: Mapping[str, Any], warn: Callable[[str], None]
) -> dict[str, Any]:
    """Return the params that this run has otherwise; look at the model that tuning begins with.

    Raises:
        ConfigError: params with these changes cannot be followed.
        LineageError: there is no champion to begin with, or samples that were taken out are in the
            model, whoever named it.
        UnknownError: no such model is registered here.
    """
    home = load_params(layout.params)
    champion = {} if start == "scratch" else {"tune.start": find(layout, None).model}
    others = {**champion, **changes}
    text = changed_params(layout.params.read_text(encoding="utf-8"), others)
    model = parse_params(parse_yaml(text), name=str(layout.params)).tune.start
    if model is None:
        return others
    version = find(layout, model)
    if not check_clean(layout, home.raw, version):
        warn(f"no manifest of version {version.number} tells whether samples taken out are in it")
    return others


def _whatever_is_new(space: Layout, reason: str, changes: Mapping[str, Any]) -> Verdict | None:
    """Go the road in a workspace apart; None where there is nothing to do.

    Raises:
        UniMoeError: stages failed, or the copy to the remote did not arrive.
    """
    left = owed(space)
    if left is not None:
        _keep(space, *left)
    plan = plan_stages(space.root)
    get_run_logger().info(plan.text())
    if plan.empty and is_judged(space, load_params(space.home.params).gate):
        if is_unsent(space):  # an earlier flow was killed, or its remote was away
            send(str(space.root))
        return None
    expect_verdict(space, str(flow_run.get_id()), reason)
    judged = partial(_keep, space, reason)
    return recorded_road(plan, space, _why(reason, plan), changes, judged)


def _keep(space: Layout, reason: str, verdict: Verdict) -> None:
    """Keep a verdict for people, whatever becomes of the flow from now on."""
    news = of_verdict(verdict, str(space.home.root), reason)
    keep(space.home, news, get_run_logger().warning)
    is_kept(space)


def _why(reason: str, plan: Plan) -> str:
    """Return a reason with what is new, as the first stage that must run says it."""
    first = next((stage for stage in plan.stages if stage.reasons), None)
    return reason if first is None else f"{reason} ({first.name}: {first.why})"
