"""A home workspace whose whole road is one quick stage that makes a candidate from raw data."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

from flows.asking import Wish, ask
from flows.up import up
from tests.unit.registry.workspace import candidate
from uni_moe.artifacts import Layout, sha256_file
from uni_moe.config import load_params
from uni_moe.errors import DataError, UniMoeError
from uni_moe.runs import start_run
from uni_moe.workspace import recipe_file

REPOSITORY = Path(__file__).parents[2]
OUTS = ("samples/image", "corpus/image", "experts/image", "experts/video", "model", "report")
GRAPH = f"""
stages:
  all:
    cmd: {sys.executable} -m tests.integration.little_home
    params: [seed]
    deps:
      - ${{raw}}
      - ${{contract.manifest}}
    outs:
""" + "".join(f"      - artifacts/{name}\n" for name in OUTS)
HOLD = "hold"  # while it lies in the home, the stage does not end
POINTS = 20


def make_home(root: Path, weights: str = "a", share: float = 0.7) -> Layout:
    """Make a workspace with raw data of its own."""
    (root / ".dvc").mkdir(parents=True)
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root / name)
    (root / "dvc.yaml").write_text(GRAPH, encoding="utf-8")
    shutil.copytree(REPOSITORY / "data_contracts", root / "data_contracts")
    shutil.copy(recipe_file("smoke"), root / "params.yaml")
    (root / "data").mkdir()
    new_data(root, weights, share)
    return Layout(root)


def new_data(root: Path, weights: str, share: float, breaks: int | None = None) -> None:
    """Put other raw data into a workspace: what a model will hold, and how well it will do.

    Where they break the stage, it ends with an exit code.
    """
    text = json.dumps({"weights": weights, "share": share, "breaks": breaks})
    (root / "data" / "raw.json").write_text(text, encoding="utf-8")


def environment() -> dict[str, str]:
    """Return an environment in which stages find this program."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "UNI_MOE_WORKERS": "2"}


def stage(root: Path) -> None:
    told = json.loads((root / "data" / "raw.json").read_text(encoding="utf-8"))
    layout = Layout(root)
    if told["breaks"] is not None:
        error = DataError("The data are broken.", cause="a test.", remedy="mend them.")
        error.exit_code = told["breaks"]
        raise error
    rules = sha256_file(root / load_params(layout.params).contract.manifest)
    with start_run(layout, "tune", {}) as run:
        for step in range(POINTS):
            run.metric(step, {"loss": 1.0 / (step + 1)})
        (layout.home.root / "begun").touch()
        while (layout.home.root / HOLD).exists():
            time.sleep(0.05)
        seed = load_params(layout.params).seed
        candidate(layout, f"{told['weights']} of seed {seed} by {rules}", told["share"])
        run.artifact("artifacts/model", told["weights"])


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(words: list[str]) -> int:
    """Do what `uni-moe up` and `uni-moe retrain` do, here where the graph is another one."""
    layout = Layout(Path.cwd())
    try:
        if not words:
            stage(layout.root)
        elif words[0] == "up":
            up(layout, int(words[1]), say)
        else:
            changes = dict(word.split("=") for word in words[1:] if "=" in word)
            changes = {key: int(value) for key, value in changes.items()}
            ask(layout, Wish(words[1], changes=changes), say, wait="--wait" in words)
    except UniMoeError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
