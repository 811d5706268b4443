"""A workspace with a registered model whose artifacts DVC knows, a few bytes each."""

import shutil
from contextlib import chdir
from pathlib import Path

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
