"""The engine and the loop on a GPU: every stage learns, random numbers follow from the step."""

import pytest
import torch

pytest.importorskip("deepspeed", reason="the engine is DeepSpeed's")
pytest.importorskip("peft", reason="the engine knows adapters of experts")
pytest.importorskip("pyarrow", reason="the loop's errors name samples")

from tests.unit.train.test_loop import SCHEDULE, ToyLearner
from uni_moe.artifacts import Layout
from uni_moe.runs import start_run
from uni_moe.train.engine import EngineOptions
from uni_moe.train.loop import train
from uni_moe.train.state import StateStore

pytestmark = pytest.mark.gpu
WAYS = {
    "zero 0": EngineOptions(),
    "zero 1": EngineOptions(zero_stage=1),
    "zero 2": EngineOptions(zero_stage=2),
    "zero 3": EngineOptions(zero_stage=3),
    "offload": EngineOptions(zero_stage=2, offload_optimizer=True),
}


class OnGpu(ToyLearner):
    def batch(self, step):
        return super().batch(step).cuda()


def trained(folder, learner, options):
    with start_run(Layout(folder), "toy", {}) as run:
        states = StateStore(folder / "state")
        train(learner, SCHEDULE, states=states, run=run, title="toy", options=options)
    return {name: tensor.cpu() for name, tensor in learner.module.state_dict().items()}


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_a_training_that_goes_on_ends_in_the_same_bits_with_dropout(options, tmp_path):
    expected = trained(tmp_path / "whole", OnGpu(dropout=0.5), options)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", OnGpu(dropout=0.5, stop_at=14), options)
    found = trained(tmp_path / "cut", OnGpu(dropout=0.5), options)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_every_stage_learns_what_the_plain_one_does(options, tmp_path):
    expected = trained(tmp_path / "plain", OnGpu(), WAYS["zero 0"])
    found = trained(tmp_path / "stage", OnGpu(), options)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-5)
