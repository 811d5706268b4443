"""The command's word for the feature cache: what it holds, and how it is freed."""

from __future__ import annotations

import argparse
import json

from uni_moe.artifacts import Layout
from uni_moe.command import Command
from uni_moe.machine import load_machine


def add_words(command: Command) -> None:
    """Add the word to the parser; `command` makes one."""
    sub = command("features", _features, "tell what encoder features are kept, or clear them")
    sub.add_argument(
        "--clear",
        nargs="?",
        const="",
        metavar="ENCODER",
        help="free a kind's (image, video, audio, speech) or one encoder's; alone: all",
    )
    sub.add_argument("--json", action="store_true", help="as JSON")


def _features(arguments: argparse.Namespace) -> None:
    from uni_moe.data.features import feature_folder
    from uni_moe.data.kept_features import clear_features, kept_features, kept_text

    layout = Layout(arguments.workspace.resolve())
    root = feature_folder(layout, load_machine(layout.root).features)
    is_clearing = arguments.clear is not None
    found = clear_features(root, arguments.clear or None) if is_clearing else kept_features(root)
    if arguments.json:
        told = {"folder": str(root), "cleared": is_clearing}
        print(json.dumps({**told, "encoders": [one.to_json() for one in found]}, indent=1))
    else:
        print(("cleared:\n" if is_clearing else "") + kept_text(root, found))
