"""Workspaces: a folder with its own params, graph, contracts and artifacts, made from a recipe."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from uni_moe.artifacts import write_text
from uni_moe.config import load_params
from uni_moe.errors import ConfigError

PACKAGE = Path(__file__).parent
HOUSE = PACKAGE.parent
_PARAMS = "params.yaml"


def recipes() -> dict[str, str]:
    """Return every recipe's name and its first line."""
    found = {}
    for file in sorted((PACKAGE / "recipes").glob("*.yaml")):
        found[file.stem] = file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
    return found


def make_workspace(folder: Path, recipe: str) -> Path:
    """Make a workspace from a recipe and return its full path.

    Paths of a recipe's sources are read relative to the folder that the command is given in, and
    rewritten relative to the workspace.

    Raises:
        ConfigError: the recipe is unknown, or the folder holds something.
    """
    source = PACKAGE / "recipes" / f"{recipe}.yaml"
    if not source.is_file():
        raise ConfigError(
            f"There is no recipe {recipe!r}.",
            cause="recipes are files that come with the package.",
            remedy=f"choose one of: {', '.join(recipes())}.",
        )
    folder = folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} is not empty.",
            cause="a workspace is made in a new or empty folder, so that nothing is overwritten.",
            remedy="name another folder.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / _PARAMS, _moved(source.read_text(encoding="utf-8"), Path.cwd(), folder))
    graph = (HOUSE / "dvc.yaml").read_text(encoding="utf-8")
    write_text(folder / "dvc.yaml", graph.replace("- code: uni_moe", f"- code: {PACKAGE}"))
    shutil.copytree(HOUSE / "data_contracts", folder / "data_contracts")
    (folder / ".dvc").mkdir()
    shutil.copy(HOUSE / ".dvc" / "config", folder / ".dvc" / "config")
    shutil.copy(HOUSE / ".dvcignore", folder / ".dvcignore")
    (folder / "data").mkdir()
    shutil.copy(HOUSE / "data" / "README.md", folder / "data" / "README.md")
    load_params(folder / _PARAMS)
    return folder


def _moved(text: str, here: Path, there: Path) -> str:
    """Rewrite the paths of `raw`, `path` and `media_root` that leave the recipe's folder."""
    lines = []
    for line in text.splitlines():
        key, colon, value = line.partition(": ")
        name = key.lstrip(" -{")
        if colon and name in ("raw", "path", "media_root") and value.startswith(".."):
            value = os.path.relpath((here / value).resolve(), there)
        lines.append(f"{key}{colon}{value}")
    return "\n".join(lines) + "\n"
