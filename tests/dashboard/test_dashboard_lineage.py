"""Lineage: the graph around an artifact, what differs, and what a sample is in."""

import json
import shutil

import pydot
import pytest
from sqlalchemy import create_engine, text

from dashboard.drawing import dot, quoted
from tests.dashboard.pages import frames, opened, said
from uni_moe.artifacts import Layout, read_card
from uni_moe.registry.indexing import catch_up
from uni_moe.registry.neighbourhood import Link, Neighbour, Neighbourhood

HOSTILE = (
    '<script>alert(1)</script>"]; x [label=<<b>y</b>>] \\N &lt; ![a](http://b) \u202e' + "z" * 999
)


def drawn(app):
    return app.get("graphviz_chart")[0].proto.spec


def test_an_empty_workspace_says_how_the_first_artifacts_are_made(tmp_path, monkeypatch):
    app = opened(monkeypatch, tmp_path, "lineage")
    assert not app.exception
    assert "uni-moe run" in said(app)


def test_without_a_question_the_champion_is_the_centre(two_versions, monkeypatch):
    app = opened(monkeypatch, two_versions.root, "lineage")
    assert not app.exception
    assert f"around {two_versions.name_of(two_versions.model)}" in said(app)
    rows = frames(app)[0]
    assert {"samples", "validated", "corpus", "expert", "model", "report"} <= {
        row["kind"] for row in rows
    }
    assert [row["versions"] for row in rows if row["where"] == "the centre"] == ["2"]
    assert "penwidth=4" in drawn(app)
    assert read_card(two_versions.model).code in said(app)


def test_the_address_says_which_artifact_which_way_how_far_and_which_kind(
    two_versions, monkeypatch
):
    app = opened(
        monkeypatch, two_versions.root, "lineage", artifact="1", way="up", steps=5, kind="samples"
    )
    assert not app.exception
    assert {row["kind"] for row in frames(app)[0]} == {"samples", "model"}
    assert "dashed" in drawn(app)
    one = read_card(two_versions.samples("image")).id
    below = opened(monkeypatch, two_versions.root, "lineage", artifact=one[:9], way="down", steps=1)
    assert {row["where"] for row in frames(below)[0]} == {"the centre", "1 below"}


@pytest.mark.parametrize("unknown", ["nothing", "../../etc/passwd", "9", "ffffffff", "<b>x</b>"])
def test_an_unknown_artifact_is_told_with_what_to_do(two_versions, monkeypatch, unknown):
    app = opened(monkeypatch, two_versions.root, "lineage", artifact=unknown)
    assert not app.exception
    assert "names no artifact" in app.warning[0].value
    assert "uni-moe index" in said(app)


def test_a_name_that_means_several_asks_which_one(two_versions, monkeypatch, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(two_versions.root, copy, symlinks=True)
    shutil.rmtree(copy / "artifacts")
    app = opened(monkeypatch, copy, "lineage", artifact="artifacts/model")
    assert not app.exception
    assert "several" in app.warning[0].value


def test_an_artifact_whose_card_is_gone_is_told(two_versions, monkeypatch, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(two_versions.root, copy, symlinks=True)
    catch_up(Layout(copy))
    gone = read_card(two_versions.samples("audio")).id
    engine = create_engine(f"sqlite:///{copy / 'registry.sqlite'}")
    with engine.begin() as connection:
        for table, column in (("sources", "artifact"), ("run_artifacts", "artifact")):
            connection.execute(text(f"delete from {table} where {column} = :gone"), {"gone": gone})
        connection.execute(text("delete from artifacts where id = :gone"), {"gone": gone})
    engine.dispose()
    app = opened(monkeypatch, copy, "lineage", artifact=gone[:12], steps=1)
    assert not app.exception
    assert "Its card is gone" in said(app)
    assert "its card is gone" in drawn(app)


def test_hostile_names_are_text_in_the_picture():
    node = Neighbour("f" * 64, HOSTILE, "ingest", "samples", 0, (), {})
    other = Neighbour("e" * 64, 'a"b\nc', None, HOSTILE, 1, (), {})
    found = Neighbourhood(
        node.id, (node, other), (Link(other.id, node.id, 2),), 1, left_out=0, is_endless=False
    )
    told = dot(found)
    (read,) = pydot.graph_from_dot_data(told)
    assert [one.get_name() for one in read.get_nodes() if one.get("label")] == ["n0", "n1"]
    assert all(one.get("label").startswith('"') for one in read.get_nodes() if one.get("label"))
    assert "\u202e" not in told
    assert "z" * 400 not in told
    assert quoted('a"\\N&lt;') == '"a\\"\\\\N&amp;lt;"'


def test_two_versions_are_compared_by_data_settings_and_scores(two_versions, monkeypatch):
    app = opened(monkeypatch, two_versions.root, "lineage", view="difference")
    assert not app.exception
    assert [one.value for one in app.selectbox] == [1, 2]
    told = json.dumps(frames(app))
    for part in ("removed", "mine/1", "rate", "+30.0 points"):
        assert part in told
    assert "uni-moe diff 1 2" in said(app)


def test_versions_in_the_address_mean_the_difference(two_versions, monkeypatch):
    app = opened(monkeypatch, two_versions.root, "lineage", a=2, b=1)
    assert [one.value for one in app.selectbox] == [2, 1]
    assert "added" in json.dumps(frames(app))


def test_one_version_cannot_be_compared(tmp_path, monkeypatch):
    app = opened(monkeypatch, tmp_path, "lineage", view="difference", a=1, b=99)
    assert not app.exception
    assert "two are needed" in said(app)


def test_a_sample_says_which_models_saw_it_and_what_a_removal_costs(two_versions, monkeypatch):
    app = opened(monkeypatch, two_versions.root, "lineage", sample="mine/1")
    assert not app.exception
    told = said(app)
    assert "learned from them: 1; the champion is not" in told
    for command in ("uni-moe remove mine/1", "uni-moe impact mine/1", "uni-moe forget 1 --why"):
        assert command in told
    rows = [row for row in frames(app)[1] if row["times drawn"] != "-"]
    assert (rows[0]["times drawn"], rows[0]["first step"], rows[0]["last step"]) == ("2", "1", "2")


def test_a_sample_of_the_champion_names_the_stages_that_run_again(two_versions, monkeypatch):
    told = said(opened(monkeypatch, two_versions.root, "lineage", sample="mine/2"))
    assert "the champion is one of them" in told
    assert "uni-moe rollback" in told
    assert "experts@image" in told
    assert "uni-moe forget 2 --why" in told


def test_a_sample_that_nobody_learned_from_is_told(two_versions, monkeypatch):
    app = opened(monkeypatch, two_versions.root, "lineage", view="sample", sample="mine/7")
    assert not app.exception
    assert "No registered version is known" in said(app)


def test_all_samples_of_one_person_are_asked_for(two_versions, monkeypatch):
    app = opened(monkeypatch, two_versions.root, "lineage", subject="ann")
    assert sorted(row["key"] for row in frames(app)[0]) == ["mine/1", "mine/8"]


def test_an_unknown_sample_is_told_with_cause_and_remedy(two_versions, monkeypatch):
    app = opened(monkeypatch, two_versions.root, "lineage", sample="mine/none")
    assert not app.exception
    assert "remedy:" in said(app)
