"""Phases that pack, cut steps by positions and leave holes: their ledgers and accounts hold."""

import copy
import importlib
import shutil
from dataclasses import replace

import pytest

from tests.house.code_deps import ROOT
from tests.integration.test_smallest_road import smallest_data
from uni_moe.artifacts import CARD, Layout, read_card, read_json, write_json
from uni_moe.cli_stages import STAGES
from uni_moe.config import parse_params
from uni_moe.data.exposures import read_entries
from uni_moe.data.manifest import read_manifest
from uni_moe.data.order import Order
from uni_moe.errors import StageError
from uni_moe.removing import take_out
from uni_moe.runs import start_run
from uni_moe.stage import StageContext
from uni_moe.train.ledger import Ledger
from uni_moe.train.ledger_check import check

FIRST = ("ingest", "validate", "prepare@text", "prepare@image", "prepare@video", "prepare@audio")
BEFORE = ("foundation@language", "foundation@image", "foundation@audio")
PHASES = ("align@image", "align@audio", "experts@audio")
# Pictures take 36 positions here and their captions some more; sounds take 8.
PACKED = {"batch_size": None, "batch_positions": 120, "steps": 6, "sources": {"playground": 2.0}}
CUT = {"row_positions": 48, "rows": 1, "on_too_long": "truncate"}


def params_of():
    data = copy.deepcopy(smallest_data())
    for phase in (*data["align"].values(), *data["experts"].values()):
        phase |= {**PACKED, "packing": {**CUT, "row_positions": 64}}
    data["experts"]["audio"]["packing"] = {**CUT, "row_positions": 16}
    return parse_params(data)


def run(layout, params, *stages):
    for stage in stages:
        module, _, function = STAGES[stage.partition("@")[0]][0].partition(":")
        with start_run(layout, stage, {}) as record:
            context = StageContext(stage, layout, params, record)
            getattr(importlib.import_module(module), function)(context)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    layout, params = Layout(tmp_path_factory.mktemp("packing")), params_of()
    (layout.root / "data").mkdir()
    shutil.copytree(ROOT / "data_contracts", layout.root / "data_contracts")
    run(layout, params, *FIRST, *BEFORE)
    rows = read_manifest(layout.samples("image"))
    gone = next(row["key"] for row in rows if row["split"] == "train")
    take_out(layout, params, [gone])
    run(layout, params, *FIRST, *PHASES)
    return layout


def folder_of(layout, phase):
    name, _, item = phase.partition("@")
    return layout.aligned(item) if name == "align" else layout.expert(item)


@pytest.mark.parametrize("phase", PHASES)
def test_a_ledger_of_packing_is_what_seed_and_corpus_say(layout, phase):
    folder = folder_of(layout, phase)
    found = check(layout, folder)
    assert found.problems == ()
    assert found.entries == len(list(read_entries(folder / "ledger.parquet"))) > 0


def test_a_packing_that_cuts_tells_it_and_every_token_is_somewhere(layout):
    entries = list(read_entries(layout.expert("audio") / "ledger.parquet"))
    assert any(entry.truncated for entry in entries)
    results = read_card(layout.expert("audio")).results["exposure"]["playground"]["audio"]
    tokens = results["tokens"]
    assert tokens["truncated"] + tokens["truncated_to_nothing"] > 0
    assert tokens["accepted"] == sum(n for name, n in tokens.items() if name != "accepted")


def test_a_sample_that_was_taken_out_is_listed_and_removed(layout):
    results = read_card(layout.aligned("image")).results["exposure"]["playground"]
    samples = results["image"]["samples"]
    assert samples["removed"] == 1
    assert samples["listed"] == sum(n for name, n in samples.items() if name != "listed")
    assert results["video"]["samples"]["removed"] == 0


def test_a_changed_order_is_not_the_one_of_a_ledger(layout, monkeypatch):
    epoch = Order.epoch
    monkeypatch.setattr(Order, "epoch", lambda *told: epoch(*told)[::-1])
    assert check(layout, layout.aligned("image")).problems


@pytest.fixture
def again(layout, tmp_path):
    """Return a workspace of the test's own, in which a phase has not run yet."""
    copied = Layout(shutil.copytree(layout.root, tmp_path / "copy"))
    shutil.rmtree(copied.expert("audio"))
    return copied


def test_a_ledger_that_lacks_a_draw_ends_its_phase(again, monkeypatch):
    add = Ledger.add
    monkeypatch.setattr(
        Ledger,
        "add",
        lambda self, told: add(self, replace(told, seen=told.seen[told.step == 5 :])),
    )
    with pytest.raises(StageError, match="does not hold the draws of its phase: it says step 5"):
        run(again, params_of(), "experts@audio")
    assert not again.expert("audio").exists()


def test_a_corpus_that_says_another_number_of_samples_ends_its_phase(again):
    card = again.corpus("audio") / CARD
    told = read_json(card)
    told["results"]["listed"]["playground"] += 1
    write_json(card, told)
    with pytest.raises(StageError, match="playground, audio: listed samples are 8"):
        run(again, params_of(), "experts@audio")
    assert not again.expert("audio").exists()


def test_a_card_does_not_know_how_a_phase_was_spread(layout):
    assert "ranks" not in read_card(layout.expert("audio")).results
