"""Workspaces apart: as their home is at the moment, one for each run, nothing made twice."""

from contextlib import ExitStack

import pytest
import yaml

from flows.apart import _climb, apart, changed_params, frozen
from flows.dvc import plan_stages
from tests.integration.little_home import environment, make_home, new_data
from tests.stores.workspace import commit
from tests.unit.registry.workspace import candidate
from uni_moe.errors import ConfigError
from uni_moe.runs import start_run
from uni_moe.workspace import HOUSE

HOUSE_GRAPH = (HOUSE / "dvc.yaml").read_text()


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return make_home(tmp_path / "home")


def test_a_workspace_apart_holds_what_its_home_has_made(home):
    candidate(home, "a", 0.7)
    commit(home)
    with apart(home, {}) as space:
        assert plan_stages(space.root).empty
        model = space.model / "content.bin"
        assert model.read_text() == "a"
        assert model.samefile(home.model / "content.bin") or model.stat().st_nlink > 1
    new_data(home.root, "b", 0.7)
    with apart(home, {}) as again:
        assert again.root == space.root
        assert [stage.name for stage in plan_stages(again.root).stages] == ["all"]


def test_records_of_a_workspace_apart_are_its_homes(home):
    with apart(home, {}) as space, start_run(space, "tune", {}) as run:
        assert space.home.root == home.root
        assert space.name_of(run.folder) == f"runs/{run.id}"
    assert (home.runs / run.id / "run.json").is_file()


def test_two_runs_at_once_have_two_workspaces(home):
    with apart(home, {}) as one, apart(home, {}) as other:
        assert one.root != other.root
    with apart(home, {}) as again:
        assert again.root == one.root


def test_a_run_that_broke_off_is_gone_on_with_before_all_others(home):
    with ExitStack() as stack:
        stack.enter_context(apart(home, {}))
        with pytest.raises(RuntimeError), apart(home, {}) as broken:
            raise RuntimeError
    with apart(home, {}) as next_one:
        assert next_one.root == broken.root


def test_params_are_the_homes_but_for_what_a_run_changes(home):
    with apart(home, {"tune.steps": 9}) as space:
        ours, theirs = (yaml.safe_load(one.params.read_text()) for one in (space, home))
    assert ours["tune"]["steps"] == 9
    assert ours == {**theirs, "tune": {**theirs["tune"], "steps": 9}}
    with apart(home, {}) as space:
        assert space.params.read_bytes() == home.params.read_bytes()


@pytest.mark.parametrize("key", ["tune.stepps", "nothing", "seed.more", "tun.steps"])
def test_a_change_of_an_unknown_key_is_refused(home, key):
    with pytest.raises(ConfigError), apart(home, {key: 1}):
        pass
    assert not home.apart.exists()


@pytest.mark.parametrize("key", ["gate", "gate.approvals", "gate.margin"])
def test_no_run_changes_the_rules_of_the_gate(home, key):
    with pytest.raises(ConfigError, match="cannot be changed for one run") as told:
        changed_params(home.params.read_text(), {"seed": 8, key: 0})
    assert "judges every candidate by the rules" in told.value.cause
    assert "params.yaml" in told.value.remedy


@pytest.mark.parametrize("path, levels", [("data", 0), ("../a/b", 1), ("a/../../../b", 2)])
def test_a_path_may_climb_out_of_a_workspace(path, levels):
    assert _climb(path) == levels


def test_raw_data_beside_a_home_are_found_from_apart(home):
    text = home.params.read_text().replace("raw: data", "raw: ../elsewhere/data")
    home.params.write_text(text)
    (home.root.parent / "elsewhere").mkdir()
    (home.root / "data").rename(home.root.parent / "elsewhere" / "data")
    with apart(home, {}) as space:
        found = space.root / "../elsewhere/data/raw.json"
        assert found.samefile(home.root.parent / "elsewhere/data/raw.json")
        plan_stages(space.root)


def test_what_leads_to_another_mixture_is_frozen_where_tuning_goes_on_from_a_model():
    stages = yaml.safe_load(frozen(HOUSE_GRAPH))["stages"]
    held = {name for name, stage in stages.items() if stage.get("do", stage).get("frozen")}
    assert held == {"foundation", "align", "experts", "assemble"}
    for name in held:
        del stages[name].get("do", stages[name])["frozen"]
    assert stages == yaml.safe_load(HOUSE_GRAPH)["stages"]
