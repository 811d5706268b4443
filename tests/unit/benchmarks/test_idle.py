"""Networks that are measured beside each other differ in what is idle, and in nothing else."""

from dataclasses import replace

import pytest
import torch

from benchmarks import idle, step

TINY = replace(
    idle.SHAPE, batch=3, positions=32, width=32, inner=32, layers=2, heads=2, vocabulary=60, rank=2
)


def batch(index=0):
    return step.packed(step.draw(TINY, index))


def test_idle_connectors_learn_and_change_no_loss():
    losses = {}
    for connected in (False, True):
        learns = ("lora.attention", "lora.experts", *idle._CONNECTORS * connected)
        trainer = idle.Trainer(idle.network(TINY, 0, connected=connected), learns, TINY)
        found = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
        assert any("image_connector" in name for name in found) == connected
        assert any("speech_connector" in name for name in found) == connected
        losses[connected] = trainer(batch())
    assert losses[True] == pytest.approx(losses[False], rel=1e-6)


@pytest.mark.parametrize("one", [False, True])
def test_every_position_visits_one_expert_or_all_are_busy(one):
    model = idle.network(TINY, 0)
    trainer = idle.Trainer(idle.with_one_busy(model) if one else model, idle._ADAPTED, TINY)
    for index in range(3):
        positions = batch(index)["input_ids"].numel()
        for visits in trainer.visits(batch(index)).values():
            assert len(visits) == 8
            assert sum(visits) == positions
            assert (sum(count > 0 for count in visits) == 1) == one
        trainer(batch(index))


def test_all_that_is_compared_makes_steps():
    runs = idle.runs(TINY, 0, "cpu")
    assert {name for pair in idle.BARS for name in pair} == set(runs)
    for prepare in runs.values():
        assert torch.isfinite(torch.tensor(prepare(0)()))
