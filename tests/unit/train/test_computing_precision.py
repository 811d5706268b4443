from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.unit.train.test_loop import SCHEDULE, ToyLearner
from uni_moe.artifacts import Layout
from uni_moe.model.backends.base import LowRank
from uni_moe.model.experts import Experts
from uni_moe.model.router import Router
from uni_moe.runs import start_run
from uni_moe.train.engine import EngineOptions
from uni_moe.train.loop import train
from uni_moe.train.precision import computing, finish, hold
from uni_moe.train.state import StateStore

CPU = torch.device("cpu")


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen, self.learns = nn.Linear(4, 4), nn.Linear(4, 4)
        self.frozen.requires_grad_(requires_grad=False)
        self.register_buffer("turn", torch.ones(3))


def test_what_learns_stays_whole_and_the_rest_is_half():
    module = Two()
    own = dict(module.named_parameters())
    hold(module, "bfloat16")
    assert module.frozen.weight.dtype == torch.bfloat16
    assert module.learns.weight.dtype == module.turn.dtype == torch.float32
    assert all(parameter is own[name] for name, parameter in module.named_parameters())
    assert module.learns.weight.requires_grad


def test_weights_that_were_half_are_whole_where_they_learn():
    module = Two().bfloat16()
    hold(module, "bfloat16")
    assert module.learns.weight.dtype == torch.float32


def test_what_is_finished_is_half():
    module = Two()
    finish(module, "bfloat16")
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_products_are_computed_in_the_precision(precision, dtype):
    with computing(precision, CPU):
        assert nn.Linear(4, 4)(torch.ones(2, 4)).dtype == dtype


@pytest.mark.parametrize("frozen", [True, False])
def test_packed_experts_compute_in_half_and_learn_in_whole(frozen):
    torch.manual_seed(0)
    experts, router, x_TD = Experts(4, 8, 16), Router(8, 4, 2), torch.randn(6, 8)
    factors = {
        "gate_up_proj": (torch.randn(4, 2, 8), torch.randn(4, 32, 2)),
        "down_proj": (torch.randn(4, 2, 16), torch.randn(4, 8, 2)),
    }
    leaves = [one.requires_grad_() for pair in factors.values() for one in pair]
    experts.low_rank = {name: LowRank(*pair, 0.5) for name, pair in factors.items()}
    whole_TD = experts(x_TD, router(x_TD))
    experts.requires_grad_(not frozen)
    hold(experts, "bfloat16")
    with computing("bfloat16", CPU):
        half_TD = experts(x_TD, router(x_TD))
    assert half_TD.dtype == torch.bfloat16
    assert (half_TD - whole_TD).abs().max() < 0.05 * whole_TD.abs().max()
    learned = leaves if frozen else [*leaves, *experts.parameters()]
    gradients = torch.autograd.grad(half_TD.float().square().sum(), learned)
    assert {gradient.dtype for gradient in gradients} == {torch.float32}


class HalfLearner(ToyLearner):
    """A toy whose frozen layer is half and whose products are computed in half."""

    def __init__(self, stop_at=None):
        super().__init__(stop_at=stop_at)
        hold(self.module, "bfloat16")
        plain = self.module.forward

        def forward(x):
            with computing("bfloat16", CPU):
                return plain(x)

        self.module.forward = forward


def trained(folder, learner, options):
    states = StateStore(folder / "state")
    with start_run(Layout(folder), "toy", {}) as run:
        found = train(learner, SCHEDULE, states=states, run=run, title="toy", options=options)
    return found, learner.module.layer.weight.detach().clone()


WAYS = {f"zero {stage}": EngineOptions(zero_stage=stage) for stage in range(4)}
WAYS |= {f"{name} offloaded": replace(way, offload_optimizer=True) for name, way in WAYS.items()}


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_resume_in_half_ends_in_the_same_bits_and_states_are_whole(options, tmp_path):
    expected, weight = trained(tmp_path / "whole", HalfLearner(), options)
    losses = expected["validation_loss"]["toy"]
    assert losses["after"] < 0.9 * losses["before"]
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", HalfLearner(stop_at=14), options)
    states = StateStore(tmp_path / "cut/state")
    kept = states.at(states.newest()).tensors
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    assert any(not torch.equal(one, one.bfloat16().float()) for one in kept.values())
    found, same = trained(tmp_path / "cut", HalfLearner(), options)
    assert found == expected
    assert torch.equal(same, weight)
    assert same.dtype == torch.float32
