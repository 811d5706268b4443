"""A workspace with a registered model whose artifacts DVC knows, a few bytes each."""

import json
import shutil
from contextlib import chdir
from pathlib import Path

import yaml

from tests.unit.registry.workspace import RULES, candidate
from uni_moe.artifacts import Layout
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register
from uni_moe.workspace import recipe_file

REPOSITORY = Path(__file__).parents[2]
OUTS = ("samples/image", "corpus/image", "experts/image", "experts/video", "model", "report")
GRAPH = "stages:\n  all:\n    cmd: 'true'\n    params: [seed]\n    outs:\n" + "".join(
    f"      - artifacts/{name}\n" for name in OUTS
)


def empty_workspace(root: Path) -> Layout:
    """Make what `uni-moe new` makes, with a graph of one stage and a recipe's params."""
    (root / ".dvc").mkdir(parents=True)
    for name in ("config", ".gitignore"):
        shutil.copy(REPOSITORY / ".dvc" / name, root / ".dvc" / name)
    shutil.copy(REPOSITORY / ".dvcignore", root)
    (root / "dvc.yaml").write_text(GRAPH, encoding="utf-8")
    shutil.copy(recipe_file("smoke"), root / "params.yaml")
    return Layout(root)


def registered_workspace(root: Path, weights: str = "a") -> Layout:
    """Make a workspace with a champion, its data in DVC's cache and lock."""
    layout = empty_workspace(root)
    register_one(layout, weights, 0.7)
    commit(layout)
    return layout


def register_one(layout: Layout, weights: str, share: float) -> str:
    """Train, judge, register and perhaps promote a model; return its id."""
    candidate(layout, weights, share)
    made = register(layout, reason=f"try {weights}", who="ada")
    promote_if_better(layout, made, RULES)
    return made.model


def commit(layout: Layout) -> None:
    """Let DVC take up what lies in artifacts/, as after a run."""
    from dvc.repo import Repo

    with chdir(layout.root), Repo() as repo:
        repo.commit(force=True)


def named_by(lock: Path, cache: Path) -> set[str]:
    """Return the md5 of all that a lock names, lists and their files, by hand."""
    found = set()
    for stage in yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"].values():
        for out in stage["outs"]:
            entries = json.loads((cache / out["md5"][:2] / out["md5"][2:]).read_bytes())
            found |= {out["md5"], *(entry["md5"] for entry in entries)}
    return found


def data_of_versions(layout: Layout) -> set[str]:
    """Return the md5 of all data that the locks of registered versions name."""
    cache = layout.root / ".dvc/cache/files/md5"
    locks = layout.store.glob("*/graph-*/dvc.lock")
    return {md5 for lock in locks for md5 in named_by(lock, cache)}
