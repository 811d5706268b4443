"""Watching alone does what a watched training does."""

import json
from dataclasses import replace

import pytest

from benchmarks import step, watch
from uni_moe.config import load_params
from uni_moe.data.exposures import read_entries
from uni_moe.train.learner import PhaseModule
from uni_moe.train.state import StateStore
from uni_moe.workspace import recipe_file

TINY = replace(
    watch.PLAYGROUND, batch=3, positions=16, width=16, inner=16, layers=2, heads=2, vocabulary=40
)


def lines(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def entries(folder):
    return list(read_entries(*sorted(folder.glob("*.parquet"))))


@pytest.fixture
def built(tmp_path):
    return watch.runs(TINY, 0, "cpu", tmp_path)


def test_a_watched_step_leaves_what_watching_alone_leaves(built, tmp_path):
    for name in (watch.WATCHED, watch.TELEMETRY):
        built[name](0)()
    one, other = (lines(tmp_path / name, "metrics")[0] for name in ("watched", "telemetry"))
    assert one.keys() == other.keys()
    assert one["loss"] > 0
    one, other = (lines(tmp_path / name, "routing")[0] for name in ("watched", "telemetry"))
    assert one["layers"].keys() == other["layers"].keys() == {"0"}
    tokens = watch.micro_batch(TINY, 0, "cpu").positions
    assert one["layers"]["0"]["text"]["tokens"] == other["layers"]["0"]["text"]["tokens"] == tokens


def test_the_ledger_records_every_draw_of_every_step(built, tmp_path, monkeypatch):
    built[watch.LEDGER](0)()
    found = entries(tmp_path / "ledger")
    assert [(one.step, one.slot) for one in found] == [
        (number, slot) for number in range(1, watch.STATE_STEPS + 1) for slot in range(TINY.batch)
    ]
    monkeypatch.setattr(watch, "STATE_STEPS", 2)
    for index in range(2):
        built[watch.WATCHED](index)()
    watched = entries(tmp_path / "watched" / "ledger")
    assert [(one.step, one.slot) for one in watched] == [
        (number, slot) for number in (1, 2) for slot in range(TINY.batch)
    ]
    assert all(one.tokens > 0 for one in watched)


def test_a_step_that_is_not_watched_learns_the_same():
    found = []
    for module in (watch.Unwatched, PhaseModule):
        trainer = watch.Step(module(step.learner_of(step.network(TINY, 0), TINY)))
        batches = [watch.micro_batch(TINY, index, "cpu") for index in range(3)]
        found.append([trainer(one).total.item() / one.count for one in batches])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0][0] != found[0][1]


def test_what_saving_takes_is_asked_of_states_that_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "_SAVED_STEPS", 2)
    assert watch.saving_share(TINY, 0, "cpu", tmp_path) > 0
    assert StateStore(tmp_path / "states").newest() == 2 * watch._WAITS


def test_the_sizes_are_those_of_the_playgrounds_tune_phase():
    params = load_params(recipe_file("playground"))
    tiny, tune, shape = params.foundation.language.tiny, params.tune, watch.PLAYGROUND
    assert (shape.width, shape.inner) == (tiny.hidden_size, tiny.intermediate_size)
    assert (shape.layers, shape.heads) == (tiny.layers, tiny.heads)
    assert shape.vocabulary == tiny.vocab_size
    assert (shape.batch, shape.rank) == (tune.batch_size, tune.lora.rank)
    assert (shape.experts, shape.top_k) == (
        len(params.assembly.slots),
        params.model.experts_per_token,
    )
    assert list(step.network(shape, 0).sparse_layers()) == list(params.model.sparse_layers)
    assert tune.save_every_steps == watch.STATE_STEPS


@pytest.mark.operate
def test_two_ranks_bring_together_what_a_watched_step_tells(tmp_path):
    shares = watch.shares_of_ranks(TINY, 2, tmp_path)
    assert [len(of_clock) for of_clock in shares.values()] == [2, 2]
    rows = lines(tmp_path / "rank-0", "metrics")
    assert len(rows) == watch._WARM_PAIRS + 2
    ours, theirs = (watch.micro_batch(TINY, rank, "cpu") for rank in range(2))
    (layer,) = lines(tmp_path / "rank-0", "routing")[0]["layers"].values()
    assert layer["text"]["tokens"] == ours.positions + theirs.positions
    assert not (tmp_path / "rank-1" / "metrics.jsonl").exists()
