"""Registered models held against today's contract, sample by sample and rule by rule."""

import json

import pytest
import yaml

from tests.unit.data.contract_tables import run, samples, workspace
from tests.unit.registry import data_workspace as made
from uni_moe.artifacts import parent_ids, read_card
from uni_moe.cli import main
from uni_moe.config import load_params
from uni_moe.data.contract import validate
from uni_moe.recheck import recheck
from uni_moe.records import MODALITIES
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
