"""How two versions differ: each section holds what differs, once, and nothing that is equal."""

import json

import pytest

from tests.unit.registry import data_workspace as made
from uni_moe.artifacts import Layout
from uni_moe.cli import main
from uni_moe.differing import Difference, difference, difference_text, scores_differ
from uni_moe.registry.cards import read_report
from uni_moe.registry.database import reading
from uni_moe.registry.differing import records_differ
from uni_moe.registry.indexing import index
from uni_moe.registry.read import find
from uni_moe.registry.write import register
from uni_moe.runs import start_run


def run_of(layout, artifact, card, *, torch, code, threads):
    """Record a run that made an artifact, in an environment of this torch."""
    with start_run(layout, "tune", {}) as run:
        run.artifact(artifact, card)
        run.record["environment"] = {"packages": {"torch": torch}, "cpus": 2}
        run.record["code"] = code
        run.event("platform", threads=threads)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """Two versions, of which the second has other samples, rules, settings, code and scores."""
    layout = Layout(tmp_path_factory.mktemp("two"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("UNI_MOE_DATABASE_URL", raising=False)
        first = made.registered(layout, 0.6, params={"tune": {"steps": 1, "rank": 8}})
        rows = [*made.pictures(content="painted over")[1:], made.row("mine/5", modality="image")]
        for kind, own, refused in (
            ("image", rows, ()),
            ("audio", made.sounds(), [made.row("mine/7", modality="audio")]),
        ):
            made.ingest(layout, kind, own, refused=refused, version=2)
        made.judge_data(layout, version=2, rule="duration_s: be between (0.2, 600)")
        made.train(layout, params={"tune": {"steps": 2, "rank": 8}})
        made.judge(layout, 0.7)
        second = register(layout, reason="again", who="ada", flow_run="2")
        same = {"tune": {"a.py": "1" * 64, "b.py": "2" * 64}}
        for one, torch, threads in ((first, "2.6", 1), (second, "2.7", 2)):
            code = {**same["tune"], "a.py": torch * 20}
            run_of(layout, "artifacts/model", one.model, torch=torch, code=code, threads=threads)
        index(layout)
        yield layout


def records(layout, a="1", b="2"):
    with reading(layout, data=True) as session:
        return records_differ(session, layout, find(layout, a).model, find(layout, b).model)


def told(section):
    return {(one.what, one.before, one.after, one.where) for one in section}


def test_samples_are_told_as_added_removed_or_changed_by_source_and_modality(layout):
    (image,) = records(layout).data
    assert image.name == "image"
    change = image.change
    assert (change.added, change.removed, change.changed) == (
        {"mine": 1},
        {"mine": 1},
        {"mine": 1},
    )
    assert change.keys == {"added": ("mine/5",), "removed": ("mine/1",), "changed": ("mine/2",)}


def test_a_contract_tells_its_version_and_the_rules_that_changed(layout):
    found = told(records(layout).contract)
    assert found == {
        ("version", 1, 2, ()),
        (
            "rule.short_sound",
            "duration_s: be between (0.1, 600)",
            "duration_s: be between (0.2, 600)",
            (),
        ),
    }


def test_settings_tell_what_changed_and_in_which_stages(layout):
    assert told(records(layout).parameters) == {("tune.steps", 1, 2, ("tune",))}


def test_the_environment_tells_packages_and_routes(layout):
    assert told(records(layout).environment) == {
        ("packages.torch", "2.6", "2.7", ("tune",)),
        ("routes.threads", 1, 2, ("tune",)),
    }
    assert any("experts@image" in note for note in records(layout).notes)  # no run is here


def test_a_version_does_not_differ_from_itself(layout):
    found = records(layout, "1", "1")
    sections = (found.data, found.contract, found.parameters, found.code, found.environment)
    assert not any(sections)
    whole = difference(layout, "1", find(layout, "1").model[:10])
    assert not whole
    assert "do not differ" in difference_text(whole)


def test_folders_without_a_model_are_refused_and_names_that_name_nothing_too(layout, capsys):
    words = ["--workspace", str(layout.root), "diff"]
    assert main([*words, "1", "9"]) == 2
    assert main([*words, "./nowhere", "1"]) == 2
    assert "remedy:" in capsys.readouterr().err


def test_scores_are_told_with_their_intervals_beside_all_other_sections(layout):
    before, after = (read_report(find(layout, name).report_folder) for name in "12")
    scores = scores_differ(before, after)
    assert [one.name for one in scores] == ["image", "mine/answer"]
    whole = Difference("1", "2", records(layout), (), scores, ())
    assert whole
    said = difference_text(whole)
    assert "image  60.0% [50.0%, 70.0%] -> 70.0% [60.0%, 80.0%]" in said
    for section in ("data", "contract", "parameters", "environment", "scores"):
        assert f"\n{section}\n" in f"\n{said}"
    assert "experts" not in said.splitlines()
    told = json.loads(json.dumps(whole.to_json()))
    assert told["data"][0]["change"]["added"] == {"mine": 1}
    assert scores_differ(before, before) == ()
