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
