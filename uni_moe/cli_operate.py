"""The command's words for what runs day after day: a schedule's server, retraining, restoring.

Heavy imports happen inside, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from uni_moe.artifacts import Layout
from uni_moe.command import Command
from uni_moe.config import load_params
from uni_moe.errors import ConfigError
from uni_moe.yaml_text import parse_yaml

if TYPE_CHECKING:  # Prefect is not imported for a word of help
    from flows.beside import Program


def add_words(command: Command) -> None:
    """Add the words to the parser; `command` makes one."""
    from dashboard.serving import PORT

    up = command(
        "up", _up, "stand as a Prefect server, worker and dashboard, and retrain by schedule.yaml"
    )
    up.add_argument("--port", type=int, default=4200, help="of the server, on 127.0.0.1")
    up.add_argument(
        "--dashboard-port", type=int, default=PORT, help="of the dashboard; default: %(default)s"
    )
    up.add_argument("--no-dashboard", action="store_true", help="leave the dashboard out")
    again = command("retrain", _retrain, "retrain in a workspace apart, as the schedule does")
    again.add_argument("--reason", default="by hand", help="why; kept with every run")
    again.add_argument(
        "--from",
        dest="start",
        choices=["scratch", "champion"],
        default="scratch",
        help="train all that is stale, or tune the champion further",
    )
    again.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a param for this run alone"
    )
    again.add_argument("--wait", action="store_true", help="until the server's run has ended")
    back = command("restore", _restore, "a version's params, lock, data and weights as they were")
    back.add_argument("model", nargs="?", help="version or id; default: the champion")
    back.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="new or empty")


def _restore(arguments: argparse.Namespace) -> int:
    from flows.restore import restore

    layout = Layout(arguments.workspace.resolve())
    done = restore(layout, arguments.model, arguments.into, _say)
    print(
        f"version {done.version.number} is back in {done.folder}: {done.artifacts} artifacts whole"
    )
    if done.stale:
        print("`dvc status` there is not clean; it would run again:")
        print("\n".join(f"  {line}" for line in done.stale))
        return 1
    print("`dvc status` there is clean")
    return 0


def _up(arguments: argparse.Namespace) -> None:
    from flows.up import up

    layout = _ready(arguments)
    up(layout, arguments.port, _say, _dashboard(arguments, layout))


def _dashboard(arguments: argparse.Namespace, layout: Layout) -> Program | None:
    """Return what serves the dashboard, None where it is left out or not installed."""
    from dashboard.serving import command
    from flows.beside import Program

    if arguments.no_dashboard:
        return None
    if importlib.util.find_spec("streamlit") is None:
        _say("the dashboard is left out: `pip install 'uni-moe-platform[dashboard]'` brings it")
        return None
    _, _, module, *words = command(layout.root.resolve(), port=arguments.dashboard_port)
    return Program("dashboard", module, words, arguments.dashboard_port)


def _retrain(arguments: argparse.Namespace) -> None:
    from flows.asking import Wish, ask

    changes = dict(_change(told) for told in arguments.set)
    wish = Wish(arguments.reason, arguments.start, changes)
    ask(_ready(arguments), wish, _say, wait=arguments.wait)


def _ready(arguments: argparse.Namespace) -> Layout:
    """Return a workspace whose params and graph hold."""
    from uni_moe.workspace import check_graph

    layout = Layout(arguments.workspace.resolve())
    load_params(layout.params)
    check_graph(layout.root)
    return layout


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


def _say(line: str) -> None:
    print(line, flush=True)
