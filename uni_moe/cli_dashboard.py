"""The command's word for the dashboard."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys

from uni_moe.artifacts import Layout
from uni_moe.command import Command
from uni_moe.config import load_params
from uni_moe.errors import ConfigError


def add_words(command: Command) -> None:
    """Add the word to the parser; `command` makes one."""
    from dashboard.serving import ADDRESS, ASK, PORT

    show = command("dashboard", _dashboard, "show lineage, metrics and models in a browser")
    show.add_argument("--port", type=int, default=PORT, help="default: %(default)s")
    show.add_argument("--address", default=ADDRESS, help="to listen on; default: %(default)s")
    show.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which browsers may call it, as behind a proxy",
    )
    show.add_argument(
        "--ask",
        choices=ASK,
        default=ASK[0],
        help="whether models answer questions there; auto: where they fit into memory",
    )


def _dashboard(arguments: argparse.Namespace) -> None:
    from dashboard.serving import command, warning

    layout = Layout(arguments.workspace.resolve())
    load_params(layout.params)  # a folder that is no workspace is told before a browser opens
    if importlib.util.find_spec("streamlit") is None:
        raise ConfigError(
            "The dashboard is not installed.",
            cause="streamlit is missing.",
            remedy="`pip install 'uni-moe-platform[dashboard]'`, or `make dashboard` in a "
            "checkout.",
        )
    told = warning(layout.root, arguments.address)
    if told:
        print(told, file=sys.stderr)
    print(f"the dashboard of {layout.root}: http://{arguments.address}:{arguments.port}")
    words = command(
        layout.root,
        port=arguments.port,
        address=arguments.address,
        hosts=arguments.allow_host,
        ask=arguments.ask,
    )
    sys.stdout.flush()
    os.execv(words[0], words)  # one process, which whoever started us can end
