"""Workspaces: a folder with its own params, graph, contracts and artifacts, made from a recipe."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from uni_moe.artifacts import write_text
from uni_moe.config import parse_params
from uni_moe.errors import ConfigError
from uni_moe.yaml_text import parse_yaml

PACKAGE = Path(__file__).parent
_BUILT_IN = PACKAGE / "house"  # an installed wheel carries its own copy of FILES
HOUSE = _BUILT_IN if _BUILT_IN.is_dir() else PACKAGE.parent
# copied as they stand
FILES = ("data_contracts", ".dvc/config", ".dvc/.gitignore", ".dvcignore", "data/README.md")
_GRAPH, _PARAMS = "dvc.yaml", "params.yaml"


def recipes() -> dict[str, str]:
    """Return every recipe's name and its first line."""
    found = {}
    for file in sorted((PACKAGE / "recipes").glob("*.yaml")):
        found[file.stem] = file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
    return found


def recipe_file(name: str) -> Path:
    """Return a recipe's params file.

    Raises:
        ConfigError: there is no such recipe.
    """
    file = PACKAGE / "recipes" / f"{name}.yaml"
    if name not in recipes():
        raise ConfigError(
            f"There is no recipe {name!r}.",
            cause="recipes are files that come with the package.",
            remedy=f"choose one of: {', '.join(recipes())}.",
        )
    return file


def make_workspace(folder: Path, recipe: str) -> Path:
    """Make a workspace from a recipe and return its full path.

    Paths of a recipe's sources are read relative to the folder that the command is given in, and
    rewritten relative to the workspace.

    Raises:
        ConfigError: the recipe is unknown, or the folder holds something.
    """
    source = recipe_file(recipe)
    folder = folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} is not empty.",
            cause="a workspace is made in a new or empty folder, so that nothing is overwritten.",
            remedy="name another folder.",
        )
    params = _moved(source.read_text(encoding="utf-8"), Path.cwd(), folder)
    parse_params(parse_yaml(params), name=str(source))
    made = not folder.exists()
    try:
        for name in FILES:
            _copy(HOUSE / name, folder / name)
        write_text(folder / _GRAPH, _graph())
        write_text(folder / _PARAMS, params)  # last: without it a folder is no workspace
    except BaseException:
        shutil.rmtree(folder) if made else _empty(folder)
        raise
    return folder


def check_graph(root: Path) -> None:
    """Refuse to work by the graph of another version: its lists of code would miss changes.

    The default workspace is the repository, whose dvc.yaml is the definition itself.

    Raises:
        ConfigError: the workspace's dvc.yaml is not what this version writes.
    """
    file = root / _GRAPH
    if root == HOUSE or not file.is_file() or file.read_text(encoding="utf-8") == _graph():
        return
    raise ConfigError(
        f"{file} is not the graph of this version of the code.",
        cause="the code was changed, moved or updated after the workspace had been made, or the "
        "file was edited.",
        remedy="`uni-moe refresh` writes it anew; keep stages of your own in a dvc.yaml of a "
        "folder below.",
    )


def refresh(root: Path) -> bool:
    """Write a workspace's graph anew; say whether it changed. Params and contracts stay."""
    file = root / _GRAPH
    if not (root / _PARAMS).is_file():
        raise ConfigError(
            f"{root} is no workspace.",
            cause=f"there is no {_PARAMS} in it.",
            remedy="run the command in a workspace, or make one with `uni-moe new FOLDER`.",
        )
    if root == HOUSE or (file.is_file() and file.read_text(encoding="utf-8") == _graph()):
        return False
    write_text(file, _graph())
    return True


def _graph() -> str:
    """Return the graph as a workspace holds it, with the full path of this code."""
    return here((HOUSE / _GRAPH).read_text(encoding="utf-8"))


def here(graph: str) -> str:
    """Return the default workspace's graph as it stands elsewhere: full paths of this code."""
    return graph.replace("- uni_moe/", f"- {PACKAGE}/")


def whole_paths(lock: str) -> str:
    """Return DVC's lock of the default workspace as it stands elsewhere: full paths of code."""
    return lock.replace("- path: uni_moe/", f"- path: {PACKAGE}/")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


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
