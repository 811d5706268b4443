"""Lineage: from a model back to its sources, by the ids its cards name."""

import json

import pytest

from tests.unit.registry.workspace import RULES, candidate, forget, train
from uni_moe.artifacts import Layout, read_card
from uni_moe.errors import LineageError
from uni_moe.registry import read
from uni_moe.registry.indexing import index
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.read import lineage, lineage_text
from uni_moe.registry.write import register


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


def short(layout, name):
    return read_card(layout.root / name).id[:12]


def test_the_tree_goes_back_to_the_sources_and_repeats_nothing(layout):
    train(layout, "a")
    index(layout)
    ids = {
        name: short(layout, f"artifacts/{name}")
        for name in ("model", "corpus/image", "samples/image", "experts/image", "experts/video")
    }
    assert lineage_text(lineage(layout)) == (
        f"artifacts/model  {ids['model']}  [tune]\n"
        f"├─ artifacts/corpus/image  {ids['corpus/image']}  [prepare@image]\n"
        f"│  └─ artifacts/samples/image  {ids['samples/image']}  [ingest]  listed: 7  "
        "sources: playground 7  licenses: CC0-1.0 7\n"
        f"├─ artifacts/experts/image  {ids['experts/image']}  [experts@image]\n"
        f"│  └─ artifacts/corpus/image  {ids['corpus/image']}  (shown above)\n"
        f"└─ artifacts/experts/video  {ids['experts/video']}  [experts@video]\n"
        f"   └─ artifacts/corpus/image  {ids['corpus/image']}  (shown above)"
    )


def test_the_champion_is_told_by_its_own_cards_after_artifacts_were_overwritten(layout):
    candidate(layout, "a", 0.6)
    known = register(layout, reason="first", who="ada")
    promote_if_better(layout, known, RULES)
    before = lineage(layout)
    train(layout, "b", raw="other")
    index(layout)
    assert lineage(layout) == before
    assert lineage(layout, "1") == lineage(layout, known.model[:8]) == before
    assert lineage(layout, "artifacts/model") != before
    forget(layout)
    assert lineage(layout) == before


def test_a_card_that_is_gone_is_a_gap_and_not_a_guess(layout):
    train(layout, "a", raw="old")
    old = short(layout, "artifacts/samples/image")
    samples = layout.samples("image") / "card.json"
    samples.write_text(samples.read_text().replace("CC0-1.0", "CC-BY-4.0"))
    index(layout)
    text = lineage_text(lineage(layout))
    assert f"artifacts/samples/image  {old}  (its card is gone" in text
    assert short(layout, "artifacts/samples/image") not in text


def test_the_tree_is_json(layout):
    train(layout, "a")
    index(layout)
    tree = json.loads(json.dumps(lineage(layout).to_json()))
    nodes = {node["name"]: node for node in tree["up"]}
    assert nodes["artifacts/model"]["id"] == tree["start"]
    assert nodes["artifacts/samples/image"]["facts"]["licenses"] == {"CC0-1.0": 7}
    assert nodes["artifacts/corpus/image"]["parents"] == {
        "artifacts/samples/image": nodes["artifacts/samples/image"]["id"]
    }
    assert [node["name"] for node in tree["up"]][-1] == "artifacts/model"
    assert "down" not in tree


@pytest.mark.parametrize("name", ["f" * 12 + "x", "%", "_", ""])
def test_a_name_that_names_nothing_or_much_is_refused(layout, name):
    train(layout, "a")
    index(layout)
    with pytest.raises(LineageError, match="artifacts"):
        lineage(layout, name)


def test_an_artifact_newer_than_the_index_is_said_to_be_so(layout):
    train(layout, "a")
    index(layout)
    train(layout, "b")
    with pytest.raises(LineageError, match="uni-moe index"):
        lineage(layout)


def test_no_model_at_all_is_said_to_be_so(layout):
    with pytest.raises(LineageError, match="There is no artifact"):
        lineage(layout)


def test_no_models_make_a_sentence():
    assert "no model is registered" in read.models_text([])
