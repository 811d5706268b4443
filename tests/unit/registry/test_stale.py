"""What goes stale when stages run, and which versions were made from it."""

import pytest

from tests.unit.registry.workspace import RULES, candidate, train
from uni_moe.artifacts import Layout, read_card
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.stale import stale_artifacts
from uni_moe.registry.write import register


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def test_nothing_goes_stale_where_nothing_is(layout):
    assert stale_artifacts(layout, ["tune", "ingest"]) == []


def test_only_what_the_planned_stages_made_goes_stale(layout):
    train(layout, "weights")
    (found,) = stale_artifacts(layout, ["experts@image", "evaluate"])
    assert (found.name, found.stage, found.versions) == (
        "artifacts/experts/image",
        "experts@image",
        (),
    )
    assert found.card == read_card(layout.expert("image")).id


def test_a_stale_artifact_names_the_versions_in_whose_lineage_it_stands(layout):
    candidate(layout, "weights", 0.6)
    one = register(layout, reason="a test", who="somebody", flow_run="1")
    promote_if_better(layout, one, RULES, reason="a test", flow_run="1")
    found = {one.name: one.versions for one in stale_artifacts(layout, ["ingest", "tune"])}
    assert found == {"artifacts/model": (1,), "artifacts/samples/image": (1,)}
    train(layout, "others", raw="other samples")
    again = {one.name: one.versions for one in stale_artifacts(layout, ["ingest", "tune"])}
    assert again == {"artifacts/model": (), "artifacts/samples/image": ()}
