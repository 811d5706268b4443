"""What tuning may begin with: no champion that samples taken out are in."""

import shutil

import pytest

from flows.apart import changed_params
from flows.deployments import _begin
from tests.unit.registry import data_workspace as made
from uni_moe.artifacts import Layout
from uni_moe.config import load_params
from uni_moe.data.tombstones import FILE, Tombstone, write_tombstones
from uni_moe.errors import LineageError
from uni_moe.workspace import recipe_file
from uni_moe.yaml_text import parse_yaml


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    shutil.copy(recipe_file("smoke"), tmp_path / "params.yaml")
    return Layout(tmp_path)


def take_out(layout, *keys):
    folder = layout.root / load_params(layout.params).raw
    folder.mkdir(parents=True, exist_ok=True)
    write_tombstones(folder / FILE, [Tombstone(key, "train") for key in keys])


def begun(layout, start="champion", **changes):
    said = []
    return _begin(layout, start, changes, said.append), said


def test_a_champion_that_nothing_was_taken_out_of_may_be_begun_with(layout):
    known = made.registered(layout)
    assert begun(layout) == ({"tune.start": known.model}, [])
    take_out(layout, "mine/404")  # of which nothing tells
    assert begun(layout) == ({"tune.start": known.model}, [])


def test_a_champion_that_learned_from_what_was_taken_out_is_refused(layout):
    made.registered(layout)
    take_out(layout, "mine/1")
    with pytest.raises(LineageError, match="must not be begun with") as error:
        begun(layout)
    assert "retrain" in error.value.remedy
    assert begun(layout, "scratch") == ({}, [])


@pytest.mark.parametrize("way", ["a change", "a section", "params"])
def test_a_model_that_is_named_in_another_way_is_refused_as_well(layout, way):
    known = made.registered(layout)
    take_out(layout, "mine/1")
    text = layout.params.read_text(encoding="utf-8")
    changed = changed_params(text, {"tune.start": known.model})
    if way == "params":
        layout.params.write_text(changed, encoding="utf-8")
    section = {"tune": parse_yaml(changed)["tune"]}
    others = {"a change": {"tune.start": known.model}, "a section": section, "params": {}}[way]
    with pytest.raises(LineageError, match="must not be begun with"):
        begun(layout, "scratch", **others)
    assert begun(layout, **{"tune.start": None}) == ({"tune.start": None}, [])


def test_a_champion_whose_ledgers_prove_that_it_never_learned_from_it_may_be_begun_with(layout):
    known = made.registered(layout)
    take_out(layout, "mine/9")
    assert begun(layout) == ({"tune.start": known.model}, [])


def test_a_champion_of_which_nothing_can_be_said_is_begun_with_and_told(layout):
    known = made.registered(layout)
    take_out(layout, "mine/1")
    made.lose_manifests(layout)
    others, said = begun(layout)
    assert others == {"tune.start": known.model}
    assert "version 1" in said[0]
