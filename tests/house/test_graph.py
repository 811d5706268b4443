"""dvc.yaml is the one definition of the graph; code, command and recipes are held to it."""

import re
from pathlib import Path

import pytest
import yaml

from tests.house.code_deps import GRAPH, ROOT, with_code_deps
from uni_moe.cli_stages import STAGES
from uni_moe.config import load_params
from uni_moe.workspace import make_workspace, recipes


def stages():
    found = set()
    for name, stage in yaml.safe_load(GRAPH.read_text())["stages"].items():
        items = stage.get("foreach")
        found |= {f"{name}@{item}" for item in items} if items else {name}
    return found


def test_every_stage_depends_on_exactly_the_code_it_imports():
    text = GRAPH.read_text()
    assert text == with_code_deps(text), "run `python -m tests.house.code_deps`"


def test_the_command_knows_the_graphs_stages_and_no_other():
    known = {
        f"{name}@{item}" if item else name
        for name, (_, items, _) in STAGES.items()
        for item in (items or ("",))
    }
    assert known == stages()


def data_edges():
    """Return stage -> its artifact inputs, and artifact -> the stage that makes it."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        reads, makes = {}, {}
        for stage in repo.index.stages:
            paths = [Path(dep.fs_path) for dep in stage.deps if dep.protocol == "local"]
            inside = [path for path in paths if path.is_relative_to(ROOT / "artifacts")]
            reads[stage.name] = [path.relative_to(ROOT).as_posix() for path in inside]
            for out in stage.outs:
                makes[Path(out.fs_path).relative_to(ROOT).as_posix()] = stage.name
    return reads, makes


def followers(names):
    """Return the stages that may run again when these have made something new."""
    reads, makes = data_edges()
    found, grown = set(names), True
    while grown:
        more = {
            stage
            for stage, inputs in reads.items()
            for path in inputs
            for out, maker in makes.items()
            if maker in found and f"{path}/".startswith(f"{out}/")
        }
        grown = not more <= found
        found |= more
    return found


def test_an_edited_sound_retrains_nothing_of_pictures_films_and_speech():
    stages = ("foundation@audio", "align@audio", "experts@audio", "assemble", "tune", "evaluate")
    assert followers({"prepare@audio"}) == {"prepare@audio", *stages}


def test_an_edited_text_reaches_whatever_speaks():
    found = followers({"prepare@text"})
    assert {"foundation@language", "align@image", "experts@video", "tune"} <= found
    assert not found & {"foundation@image", "foundation@audio", "foundation@speech"}


def test_the_playground_recipe_is_the_default_workspace():
    recipe = (ROOT / "uni_moe/recipes/playground.yaml").read_text()
    assert recipe == (ROOT / "params.yaml").read_text()


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_makes_a_workspace_whose_graph_is_ours(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = make_workspace(tmp_path / "space", name)
    load_params(folder / "params.yaml")
    ours = GRAPH.read_text().splitlines()
    theirs = (folder / "dvc.yaml").read_text().splitlines()
    differing = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    assert differing
    assert all(b == a.replace("- uni_moe/", f"- {ROOT / 'uni_moe'}/") for a, b in differing)


def test_what_the_documentation_names_exists():
    readme = (ROOT / "README.md").read_text()
    commands = set(re.findall(r"`uni-moe ([a-z][a-z-]*)", readme))
    from uni_moe.cli import _parser

    known = set(_parser()._subparsers._group_actions[0].choices)
    assert commands <= known
    for path in re.findall(r"`((?:data_contracts|uni_moe)/[\w./]+)`", readme):
        assert (ROOT / path).exists(), path
