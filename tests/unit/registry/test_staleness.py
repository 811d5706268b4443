"""What no longer matches its inputs, the champion among it."""

import shutil

import pytest

from tests.unit.registry import data_workspace as made
from uni_moe.artifacts import Layout, read_card
from uni_moe.audit import Asked
from uni_moe.registry.indexing import index
from uni_moe.registry.promoting import promote
from uni_moe.registry.staleness import staleness, staleness_by_cards
from uni_moe.registry.write import register


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


def test_nothing_is_stale_where_all_matches(layout):
    made.registered(layout)
    found = staleness(layout, {})
    assert not found
    assert found.text == "Everything matches its inputs."


def test_a_planned_stage_makes_its_artifact_stale_for_its_reason(layout):
    made.registered(layout)
    found = staleness(layout, {"tune": "params: tune.steps 1 -> 2", "align@image": "never ran"})
    (one,) = found.artifacts
    assert (one.name, one.why) == ("artifacts/model", "params: tune.steps 1 -> 2")
    assert one.versions == (1,)
    assert found.waiting == ("align@image",)


def test_an_artifact_whose_input_was_made_again_is_stale_whatever_a_plan_says(layout):
    made.road(layout)
    made.ingest(layout, "audio", made.sounds()[:1])
    found = {one.name: one.why for one in staleness(layout, {}).artifacts}
    assert found["artifacts/experts/audio"] == "artifacts/corpus/audio was made again since"
    assert "artifacts/experts/image" not in found


def test_the_champion_is_held_beside_the_data_of_today(layout):
    made.registered(layout)
    made.ingest(layout, "image", made.pictures()[1:])
    made.train(layout)
    index(layout)
    found = staleness(layout, {})
    assert found.champion == 1
    drifts = {one.name: one.change for one in found.drifts}
    assert drifts.keys() == {f"artifacts/{one}/image" for one in ("samples", "validated", "corpus")}
    assert drifts["artifacts/validated/image"].removed == {"mine": 1}
    assert "removed: 1 of mine (mine/1)" in found.text
    by_cards = staleness_by_cards(layout)
    assert {one.name for one in by_cards.drifts} == drifts.keys()
    assert not any(one.change for one in by_cards.drifts)  # no table of samples is read
    untold = {one.name: one.untold for one in by_cards.drifts}
    assert "was not asked" in untold["artifacts/validated/image"]
    assert untold["artifacts/samples/image"] is None


def test_a_drift_whose_manifest_is_not_kept_is_not_known_and_not_unasked(layout):
    made.registered(layout)
    made.ingest(layout, "image", made.pictures()[1:])
    made.train(layout)
    shutil.rmtree(layout.store / "seen")
    layout.registry.unlink()
    index(layout)
    found = staleness(layout, {})
    (one,) = (one for one in found.drifts if one.name == "artifacts/validated/image")
    assert (one.change, "is not known" in one.untold) == (None, True)
    assert "a manifest of theirs is not kept" in found.text


def test_a_champion_without_known_data_is_said_to_be_unknown_and_not_to_match(layout):
    made.ingest(layout, "image", made.pictures())
    made.phase(layout, layout.model, "tune", "model", [], [])
    made.judge(layout, 0.9)
    known = register(layout, reason="from elsewhere", who="ada", flow_run="1")
    promote(layout, "1", made.RULES, Asked("ada", "good"))
    assert read_card(layout.model).id == known.model
    for found in (staleness(layout, {}), staleness_by_cards(layout)):
        assert not found.is_known
        assert "whether today's are others is not known" in found.text
        assert "Everything matches" not in found.text


def test_a_model_that_goes_on_from_a_registered_one_matches_while_that_is_kept(layout):
    made.registered(layout)
    first = read_card(layout.model).id
    kept = layout.store / first / "model"
    parents = [layout.corpus("image"), kept]
    made.phase(layout, layout.model, "tune", "model", parents, ["mine/1"])
    assert "artifacts/model" not in {one.name for one in staleness(layout, {}).artifacts}
    shutil.rmtree(kept)
    found = {one.name: one.why for one in staleness(layout, {}).artifacts}
    assert found["artifacts/model"] == f"store/{first}/model is not here"
