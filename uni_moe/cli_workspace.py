"""The command's words for workspaces: made from a recipe, brought up to date.

Heavy imports happen inside, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from uni_moe.artifacts import Layout
from uni_moe.command import Command
from uni_moe.config import load_params


def add_words(command: Command) -> None:
    """Add the words to the parser; `command` makes one."""
    new = command("new", _new, "make a workspace from a recipe")
    new.add_argument("folder", type=Path)
    new.add_argument("--recipe", default="playground")
    command("recipes", _recipes, "list the recipes")
    command("refresh", _refresh, "bring a workspace's graph up to this version of the code")


def _new(arguments: argparse.Namespace) -> None:
    from uni_moe.workspace import make_workspace

    folder = make_workspace(arguments.folder, arguments.recipe)
    raw = load_params(Layout(folder).params).raw
    if not (folder / raw).exists():
        print(f"note: put the raw data at {(folder / raw).resolve()}, or change `raw`, `sources`")
    print(
        f"made a workspace at {folder}\n\nNext:\n"
        f"  cd {folder}\n  uni-moe plan\n  uni-moe run --reason 'first training'"
    )


def _refresh(arguments: argparse.Namespace) -> None:
    from uni_moe.workspace import refresh

    changed = refresh(Layout(arguments.workspace.resolve()).root)
    print("dvc.yaml is written anew" if changed else "dvc.yaml is up to date")


def _recipes(_: argparse.Namespace) -> None:
    from uni_moe.workspace import recipes

    for name, line in recipes().items():
        print(f"{name:16} {line}")
