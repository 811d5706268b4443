"""A real mixture whose router collapses in mid-training."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from tests.unit.train.reports import seen
from uni_moe.artifacts import Layout
from uni_moe.config import load_params
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.runs import start_run
from uni_moe.train.batches import MicroBatch
from uni_moe.train.learner import PhaseModule
from uni_moe.train.loop import Schedule, train
from uni_moe.train.state import StateStore
from uni_moe.train.watch import Watch

STEPS, PLANTED = 60, 11
RULES = load_params(Path(__file__).parents[3] / "params.yaml").telemetry
PLAN = Schedule(
    steps=STEPS,
    learning_rate=1e-3,
    warmup_share=0.1,
    weight_decay=0.0,
    clip_norm=1.0,
    save_every_steps=1000,
    seed=0,
)


class Learner:
    """Learns made-up text; from step PLANTED on, all tokens visit experts 1 and 3 if it is told."""

    def __init__(self, plant):
        torch.manual_seed(0)
        text = LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
        config = UniMoeConfig(text, sparse_layers=[0, 1], num_experts=5)
        self.module, self.plant = PhaseModule(UniMoeForConditionalGeneration(config)), plant
        with torch.no_grad():
            for layer in self.module.model.sparse_layers().values():
                layer.router.weight.normal_(std=0.5)

    def micro_batches(self, step, _rank, _ranks):
        if self.plant and step + 1 == PLANTED:
            self._collapse(self.module.model.sparse_layers()[1].router)
        ids = torch.randint(0, 50, (4, 12), generator=torch.Generator().manual_seed(step))
        inputs = {"input_ids": ids, "labels": ids}
        named = tuple(seen(slot, f"{step}-{slot}", modality="text", tokens=11) for slot in range(4))
        return [MicroBatch(inputs, 44.0, 4, named, positions=48)]

    def validate(self):
        return {"text": 0.0}

    @staticmethod
    def _collapse(router):
        router.register_forward_pre_hook(lambda _, given: (given[0].abs() + 1,))
        with torch.no_grad():
            router.weight.fill_(-1.0)
            router.weight[1], router.weight[3] = 2.0, 1.5


@pytest.mark.parametrize("plant", [False, True])
def test_a_planted_router_collapse_alarms_within_fifty_steps(tmp_path, plant):
    states = StateStore(tmp_path / "state")
    with start_run(Layout(tmp_path), "tune", {}) as run:
        train(Learner(plant), PLAN, states=states, run=run, title="toy", watch=Watch(RULES))
    events = map(json.loads, (run.folder / "events.jsonl").read_text().splitlines())
    alarms = [event for event in events if event["event"] == "alarm"]
    found = {(one["kind"], one["layer"], one.get("expert")): one["step"] for one in alarms}
    expected = {("collapse", 1, None), ("low_entropy", 1, None)}
    expected |= {("dead_expert", 1, expert) for expert in (0, 2, 4)}
    assert found.keys() == (expected if plant else set())
    assert all(step - PLANTED + 1 == RULES.router.patience_steps for step in found.values())
    rows = [json.loads(line) for line in (run.folder / "routing.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(sum(row["layers"]["0"]["text"]["visits"]) == 2 * 48 for row in rows)
    if plant:
        assert rows[-1]["layers"]["1"]["text"]["visits"] == [0, 48, 0, 48, 0]
