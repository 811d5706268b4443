"""A whole network on a GPU against itself on a CPU: losses, gradients, one update, answers."""

import copy

import pytest
import torch

from tests.unit.model.test_decoding import NEW, network, prompts
from uni_moe.config import Platform
from uni_moe.platform import choose, settle, take
from uni_moe.train.precision import computing, hold

pytestmark = pytest.mark.gpu
RATE = 1e-2


def batch():
    found = prompts(6)
    labels = found["input_ids"].masked_fill(found["attention_mask"] == 0, -100)
    return {**found, "labels": labels}


def one_step(model, place, precision):
    """Take a step of AdamW on what learns; return the loss, the gradients and the weights."""
    take(choose(Platform.auto(threads=1)))
    model = copy.deepcopy(model).train().to(place)
    inputs = {name: tensor.to(place) for name, tensor in batch().items()}
    with computing(precision, torch.device(place)):
        loss = model(**inputs, use_cache=False).loss
    loss.backward()
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = {name: p.grad.float().cpu() for name, p in learned.items()}
    torch.optim.AdamW(learned.values(), lr=RATE, fused=True).step()
    return float(loss.detach()), gradients, {name: p.detach().cpu() for name, p in learned.items()}


def sparse_network(precision):
    """A mixture of which experts and routers learn."""
    model = network(width=40, inner=32)
    model.requires_grad_(requires_grad=False)
    for layer in model.sparse_layers().values():
        layer.requires_grad_(requires_grad=True)
    hold(model, precision)
    return model


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 6e-2)])
def test_a_step_on_a_gpu_is_that_of_a_cpu(precision, tolerance):
    model = sparse_network(precision)
    loss, gradients, weights = one_step(model, "cpu", precision)
    found = one_step(model, "cuda", precision)
    assert found[0] == pytest.approx(loss, rel=tolerance / 5)
    for name, gradient in gradients.items():
        error = (found[1][name] - gradient).norm() / gradient.norm()
        assert error <= tolerance, f"the gradient of {name} is off by {error:.1e}"
    for name, weight in weights.items():
        assert found[2][name].dtype == weight.dtype == torch.float32
        assert (found[2][name] - weight).abs().max() <= 2.01 * RATE  # a sign of a gradient near 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_on_a_gpu_has_the_same_bits_again(precision):
    model = sparse_network(precision)
    first, second = (one_step(model, "cuda", precision) for _ in range(2))
    assert first[0] == second[0]
    for a, b in zip(first[1:], second[1:], strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3])
def test_greedy_answers_are_the_same_tokens(rows):
    settle(Platform.auto(threads=1))
    model, asked = network(), prompts(rows)

    def answer(place):
        inputs = {name: tensor.to(place) for name, tensor in asked.items()}
        return model.to(place).generate(**inputs, max_new_tokens=NEW, do_sample=False).cpu()

    assert torch.equal(answer("cpu"), answer("cuda"))


def test_products_of_float32_are_not_rounded_to_tensor_cores():
    settle(Platform.auto(threads=1))
    x = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    exact = x.double() @ x.double().T
    found = (x.cuda() @ x.cuda().T).cpu()
    assert (found - exact).abs().max() / exact.abs().max() < 1e-6
