"""The command's word for the dashboard."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess

from uni_moe.artifacts import Layout
from uni_moe.command import Command
from uni_moe.config import load_params
from uni_moe.errors import ConfigError


def add_words(command: Command) -> None:
    """Add the word to the parser; `command` makes one."""
    from dashboard.serving import ADDRESS, PORT

    show = command("dashboard", _dashboard, "show lineage, metrics and models in a browser")
    show.add_argument("--port", type=int, default=PORT, help="default: %(default)s")
    show.add_argument("--address", default=ADDRESS, help="to listen on; default: %(default)s")


def _dashboard(arguments: argparse.Namespace) -> int:
    from dashboard.serving import command

    layout = Layout(arguments.workspace.resolve())
    load_params(layout.params)  # a folder that is no workspace is told before a browser opens
    if importlib.util.find_spec("streamlit") is None:
        raise ConfigError(
            "The dashboard is not installed.",
            cause="streamlit is missing.",
            remedy="`pip install 'uni-moe[dashboard]'`, or `make dashboard` in a checkout.",
        )
    print(f"the dashboard of {layout.root}: http://{arguments.address}:{arguments.port}")
    return subprocess.run(
        command(layout.root, port=arguments.port, address=arguments.address), check=False
    ).returncode
