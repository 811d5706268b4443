import shutil
import tomllib
from pathlib import Path

import pytest

from uni_moe import workspace
from uni_moe.errors import ConfigError
from uni_moe.workspace import check_graph, make_workspace, recipes, refresh

ROOT = Path(__file__).parents[2]


def test_every_recipe_makes_a_workspace_whose_graph_fits(tmp_path):
    for name in recipes():
        made = make_workspace(tmp_path / name, name)
        check_graph(made)
        assert not refresh(made)
        graph = (made / "dvc.yaml").read_text()
        assert f"- {ROOT / 'uni_moe'}/stage.py\n" in graph
        assert "- uni_moe/" not in graph


def test_a_graph_of_another_version_is_told_and_written_anew(tmp_path):
    made = make_workspace(tmp_path / "space", "smoke")
    whole = (made / "dvc.yaml").read_text()
    (made / "dvc.yaml").write_text(whole.replace(f"      - {ROOT}/uni_moe/errors.py\n", "", 1))
    with pytest.raises(ConfigError, match="not the graph of this version") as told:
        check_graph(made)
    assert "uni-moe refresh" in told.value.remedy
    assert refresh(made)
    assert (made / "dvc.yaml").read_text() == whole


def test_the_default_workspace_is_its_own_definition():
    check_graph(ROOT)
    assert not refresh(ROOT)


def test_refreshing_what_is_no_workspace_writes_nothing(tmp_path):
    with pytest.raises(ConfigError, match="is no workspace"):
        refresh(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", [True, False])
def test_a_workspace_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch, there):
    folder = tmp_path / "space"
    if there:
        folder.mkdir()
    monkeypatch.setattr(workspace, "FILES", (*workspace.FILES, "a file that is not there"))
    with pytest.raises(FileNotFoundError):
        make_workspace(folder, "smoke")
    assert folder.exists() == there
    assert not there or not list(folder.iterdir())


def test_a_wheel_carries_what_a_workspace_is_made_of():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    carried = wheel["targets"]["wheel"]["force-include"]
    assert carried == {name: f"uni_moe/house/{name}" for name in ("dvc.yaml", *workspace.FILES)}


def test_an_installed_copy_makes_workspaces_of_its_own_files(tmp_path, monkeypatch):
    house = tmp_path / "house"
    for name in ("dvc.yaml", *workspace.FILES):
        source, target = ROOT / name, house / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    monkeypatch.setattr(workspace, "HOUSE", house)
    made = make_workspace(tmp_path / "space", "smoke")
    assert (made / "data_contracts" / "manifest.yaml").is_file()
