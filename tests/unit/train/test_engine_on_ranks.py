"""What is read whole from several ranks stays on the first: others would hold it for nothing."""

import torch
from torch import nn

from benchmarks.on_ranks import on_ranks
from uni_moe.train.engine import Engine, EngineOptions

STAGES = (0, 2, 3)
WIDTH = 5  # no multiple of two ranks


def engine_of(stage):
    torch.manual_seed(stage)
    module = nn.Linear(WIDTH, 3)
    options = EngineOptions(zero_stage=stage)
    return module, Engine(module, weight_decay=0.0, clip_norm=1.0, options=options)


def ended(stages):
    """Close an engine of every stage; tell what this rank gathered before, and what it has."""
    for stage in stages:
        yield stage, None
        module, engine = engine_of(stage)
        gathered = engine._partitions.gathered(list(module.parameters()))
        count = sum(value.numel() for _, value in gathered)
        engine.close()
        yield stage, (count, module.weight.numel())


def test_partitioned_weights_are_gathered_for_the_first_rank_alone():
    found = dict(zip(STAGES, on_ranks(ended, STAGES, patience_s=120.0), strict=True))
    whole = WIDTH * 3
    assert found[0] == found[2] == ((0, whole), (0, whole))  # nothing is partitioned
    assert found[3][0] == (whole + 3, whole)
    assert found[3][1][0] == 0


def read(stages):
    """Read a state at every stage, then move the weights; tell what this rank has read."""
    for stage in stages:
        yield stage, None
        _, engine = engine_of(stage)
        engine.backward(engine.forward(torch.ones(2, WIDTH)).sum(), 1.0, last=True)
        engine.step(0.0)
        state = engine.state()
        engine.load_tensors({name: one + 1.0 for name, one in engine.tensors()}, 1)
        told = {name: (one.device.type, one.tolist()) for name, one in state.items()}
        engine.close()
        yield stage, told


def test_a_state_is_whole_on_the_first_rank_alone_and_what_stood_there_when_it_was_read():
    for stage, (first, second) in zip(
        STAGES, on_ranks(read, STAGES, patience_s=120.0), strict=True
    ):
        assert second == {}
        assert {device for device, _ in first.values()} == {"cpu"}
        assert len(first) == 3 * 2
        torch.manual_seed(stage)
        weight = nn.Linear(WIDTH, 3).weight
        assert first["weight/weight"][1] == weight.tolist()
        assert torch.tensor(first["exp_avg/bias"][1]).shape == (3,)
        assert min(first["exp_avg_sq/bias"][1]) > 0
