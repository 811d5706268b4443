"""Registered models held against today's contract, sample by sample and rule by rule."""

import json
import re

import pytest
import yaml

from tests.unit.data.contract_tables import run, samples, workspace
from tests.unit.registry import data_workspace as made
from uni_moe.artifacts import parent_ids, read_card
from uni_moe.cli import main
from uni_moe.config import load_params
from uni_moe.data.contract import validate
from uni_moe.recheck import _together, judged_together, recheck
from uni_moe.records import MODALITIES, Card
from uni_moe.registry.write import register

NARROW = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "width_px", "min_value": 49},
    "when": {"modality": "image"},
    "meta": {"code": "narrow", "level": "sample", "why": "a test", "remedy": "a wider one"},
}


@pytest.fixture
def layout(tmp_path, monkeypatch):
    """A registered model whose samples were judged by the contract of the repository."""
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    layout = workspace(tmp_path, 6)
    run("validate", layout, validate)
    for name in MODALITIES:
        parents = [layout.samples(name), layout.validated(name)]
        made.phase(layout, layout.corpus(name), f"prepare@{name}", "corpus", parents)
    corpora = [layout.corpus(name) for name in MODALITIES]
    made.phase(layout, layout.model, "tune", "model", corpora, ["made/image-003"])
    assert parent_ids(layout, layout.model)
    made.judge(layout, 0.6)
    register(layout, reason="a test", who="ada", flow_run="1")
    return layout


def demand(layout, *rules):
    file = layout.root / "data_contracts/manifest.yaml"
    told = yaml.safe_load(file.read_text(encoding="utf-8"))
    told["version"] += 1
    told["expectations"] += rules
    file.write_text(yaml.safe_dump(told), encoding="utf-8")


def test_models_keep_the_contract_that_judged_them_and_fail_a_stricter_one(layout, capsys):
    params = load_params(layout.params)
    assert [one.word for one in recheck(layout, params).models] == ["kept"]
    demand(layout, NARROW)
    (one,) = recheck(layout, params).models
    assert one.word == "fails"
    assert [failure.key for failure in one.failures] == [f"made/image-{n:03}" for n in range(6)]
    assert {failure.rules for failure in one.failures} == {("narrow",)}
    words = ["--workspace", str(layout.root), "contract", "recheck"]
    assert main(words) == 1
    assert "made/image-000  narrow" in capsys.readouterr().out
    assert main([*words, "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["models"][0]["failures"]) == 6


def test_a_model_whose_manifests_are_gone_is_unknown_and_never_passed(layout):
    demand(layout, NARROW | {"kwargs": {"column": "width_px", "min_value": 1}})
    params = load_params(layout.params)
    assert [one.word for one in recheck(layout, params).models] == ["kept"]
    for file in (layout.store / "seen").glob("*/accepted.parquet"):
        file.unlink()
    for file in layout.validated("image").glob("accepted.parquet"):
        file.unlink()
    found = recheck(layout, params)
    assert [one.word for one in found.models] == ["unknown"]
    assert not found.all_kept


MANY = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "listed", "max_value": 1},
    "when": {"scope": "all"},
    "meta": {"code": "many", "level": "table", "why": "a test", "remedy": "fewer"},
}


def test_generations_of_data_are_judged_each_by_itself(layout):
    first = layout.store / read_card(layout.model).id / "model"
    for name in ("image", "speech"):
        samples(layout, name, 3)
    run("validate", layout, validate)
    for name in ("image", "speech"):
        parents = [layout.samples(name), layout.validated(name)]
        made.phase(layout, layout.corpus(name), f"prepare@{name}", "corpus", parents)
    corpora = [layout.corpus(name) for name in MODALITIES]
    made.phase(layout, layout.model, "tune", "model", [*corpora, first], ["made/image-001"])
    made.judge(layout, 0.7)
    register(layout, reason="a test", who="ada", flow_run="2")
    demand(layout, MANY)
    one, other = recheck(layout, load_params(layout.params)).models
    counts = {
        model.number: {int(count) for count in re.findall(r"listed (\d+)", str(model.breaches))}
        for model in (one, other)
    }
    assert counts == {1: {30}, 2: {24, 30}}  # no set holds tables of both


def test_what_fails_is_told_though_another_generation_is_unknown():
    fails, unknown = ("fails", {"failures": ("a",)}), ("unknown", {"why": "gone"})
    assert _together([unknown, fails]) == ("fails", {"failures": ("a",), "breaches": ()})
    assert _together([unknown, ("kept", {})]) == unknown
    assert _together([("kept", {})])[0] == "kept"


def test_tables_of_stages_that_ran_alone_are_paired_by_the_contracts_reports():
    def card(kind, mark, **parents):
        named = {f"artifacts/samples/{name}": parent for name, parent in parents.items()}
        return "x", Card("s", kind, {"mark": mark}, named, "c", {})

    family = {
        "a": card("validated", 1, image="image-1"),
        "b": card("validated", 2, image="image-2"),
        "c": card("validated", 3, speech="speech-1"),
        "d": card("validated", 4, speech="speech-2"),
        "e": card("validated", 5, text="text-1"),
    }
    reports = {
        "r": card("contract_report", 1, image="image-1", speech="speech-2", text="text-1"),
        "s": card("contract_report", 2, image="image-2", speech="speech-1", text="text-1"),
    }
    found = judged_together(family | reports, family)
    assert sorted(found) == [("a", "d", "e"), ("b", "c", "e")]
    alone = judged_together(family, family)
    assert sorted(alone) == [("a",), ("b",), ("c",), ("d",), ("e",)]
    assert judged_together({}, {}) == []


def test_all_data_of_a_model_that_goes_on_from_another_are_held_to_the_contract(layout):
    first = layout.store / read_card(layout.model).id / "model"
    samples(layout, "image", 3)  # the new data are fewer: only the first model's held the others
    run("validate", layout, validate)
    parents = [layout.samples("image"), layout.validated("image")]
    made.phase(layout, layout.corpus("image"), "prepare@image", "corpus", parents)
    corpora = [layout.corpus(name) for name in MODALITIES]
    made.phase(layout, layout.model, "tune", "model", [*corpora, first], ["made/image-003"])
    made.judge(layout, 0.7)
    register(layout, reason="a test", who="ada", flow_run="2")
    demand(layout, NARROW)
    one, other = recheck(layout, load_params(layout.params)).models
    assert one.word == other.word == "fails"
    assert {failure.key for failure in one.failures} == {f.key for f in other.failures}
