"""What is made outside the graph names what it was made from, and where it is, is known."""

import json

import pytest

from tests.unit.registry import data_workspace as made
from tests.unit.registry.workspace import tables
from uni_moe.artifacts import Layout, read_card, verified_card
from uni_moe.checkpoints.descent import note, sign
from uni_moe.cli import main
from uni_moe.registry.asked import Asked
from uni_moe.registry.impact import impact
from uni_moe.registry.indexing import index, rebuild


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    layout = Layout(tmp_path / "workspace")
    made.registered(layout)
    return layout


def exported(layout, out):
    out.mkdir()
    (out / "config.json").write_text("{}")
    sign(out, [layout.model], stage="export-official", kind="export", params={"style": "experts"})
    note(layout, out)
    return out


def test_exports_are_known_by_lineage_and_impact_wherever_they_lie(layout, tmp_path, capsys):
    one, other = (exported(layout, tmp_path / name) for name in ("one", "other"))
    assert verified_card(one).parents == {"model": read_card(layout.model).id}
    assert main(["--workspace", str(layout.root), "lineage", "1", "--down", "--json"]) == 0
    down = json.loads(capsys.readouterr().out)["down"]
    assert read_card(one).id in [node["id"] for node in down]
    (found,) = [x for x in impact(layout, Asked(("mine/1",))).touched if x.kind == "export"]
    assert found.how == "made from"
    assert found.places == (one.as_posix(), other.as_posix())


def test_an_export_to_two_folders_has_its_first_name_after_a_rebuild_too(layout, tmp_path):
    for name in ("zebra", "ape"):
        exported(layout, tmp_path / name)
        index(layout)
    before = tables(layout)
    assert any(f"{tmp_path}/zebra" in row for row in before["artifacts"])
    rebuild(layout)
    assert tables(layout) == before


def test_a_model_that_was_changed_since_is_nobodys_child(layout, tmp_path):
    (layout.model / "content.bin").write_text("changed")
    out = exported(layout, tmp_path / "out")
    assert read_card(out).parents == {}
    assert not list(layout.runs.glob("*-export-official-*"))
