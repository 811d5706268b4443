"""The command's words for what runs day after day: a schedule's server, retraining, restoring.

Heavy imports happen inside, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from uni_moe.artifacts import Layout
from uni_moe.command import Command
from uni_moe.config import load_params
from uni_moe.errors import ConfigError, StageError
from uni_moe.yaml_text import parse_yaml

if TYPE_CHECKING:
    from uuid import UUID

_LOOK_S = 2.0


def add_words(command: Command) -> None:
    """Add the words to the parser; `command` makes one."""
    up = command("up", _up, "stand as a Prefect server and worker, and retrain by schedule.yaml")
    up.add_argument("--port", type=int, default=4200, help="of the server, on 127.0.0.1")
    again = command("retrain", _retrain, "retrain in a workspace apart, as the schedule does")
    again.add_argument("--reason", default="by hand", help="why; kept with every run")
    again.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a param for this run alone"
    )
    again.add_argument("--wait", action="store_true", help="until the server's run has ended")
    back = command("restore", _restore, "a version's params, lock, data and weights as they were")
    back.add_argument("model", nargs="?", help="version or id; default: the champion")
    back.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="new or empty")


def _restore(arguments: argparse.Namespace) -> None:
    from flows.restore import restore

    layout = Layout(arguments.workspace.resolve())
    done = restore(layout, arguments.model, arguments.into, _say)
    print(
        f"version {done.version.number} is back in {done.folder}: {done.artifacts} artifacts whole"
    )
    if done.stale:
        print("`dvc status` there tells of:")
        print("\n".join(f"  {line}" for line in done.stale))
    else:
        print("`dvc status` there is clean")


def _up(arguments: argparse.Namespace) -> None:
    from flows.up import up

    up(Layout(arguments.workspace.resolve()), arguments.port, _say)


def _retrain(arguments: argparse.Namespace) -> int:
    layout = Layout(arguments.workspace.resolve())
    load_params(layout.params)
    from uni_moe.workspace import check_graph

    check_graph(layout.root)
    changes = dict(_change(told) for told in arguments.set)
    from flows.up import where

    known = where(layout)
    if known is not None:
        os.environ.setdefault("PREFECT_API_URL", str(known["api"]))
    if "PREFECT_API_URL" in os.environ:
        return _ask(layout, arguments.reason, changes, wait=arguments.wait)
    from flows.embedded import settle

    settle(layout.state)
    from flows.deployments import retrain_apart

    state: Any = retrain_apart(str(layout.root), arguments.reason, changes, return_state=True)
    found = state.result()
    print(f"\n{state.message if found is None else found.text}")
    return 0


def _change(told: str) -> tuple[str, object]:
    key, equals, text = told.partition("=")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        equals = ""
    if not equals:
        raise ConfigError(
            f"--set {told!r} cannot be read.",
            cause="it names a key of params.yaml and its value, which is YAML.",
            remedy="write it as `--set tune.steps=100`.",
        )
    return key, value


def _ask(layout: Layout, reason: str, changes: dict[str, object], *, wait: bool) -> int:
    """Let the server's worker do it; with `wait`, stay until it has ended."""
    from flows.embedded import prepare

    prepare()
    from flows.orchestrator import BY_HAND, submit

    told = {"home": str(layout.root), "reason": reason, "changes": changes}
    run = submit(BY_HAND, told)
    page = os.environ["PREFECT_API_URL"].removesuffix("/api")
    print(f"the flow run {run.name} is asked for: {page}/runs/flow-run/{run.id}", flush=True)
    return _follow(run.id) if wait else 0


def _follow(run: UUID) -> int:
    from flows.orchestrator import state_of

    said = ""
    while True:
        name, message, has_ended = state_of(run)
        if name != said:
            print(f"{name}: {message}" if message else name, flush=True)
            said = name
        if has_ended:
            return 0 if name == "Completed" else StageError.exit_code
        time.sleep(_LOOK_S)


def _say(line: str) -> None:
    print(line, flush=True)
