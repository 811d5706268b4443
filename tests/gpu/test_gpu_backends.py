"""Packed experts on a GPU against the plain way on a CPU: values and gradients."""

from dataclasses import replace

import pytest
import torch

from tests.unit.model.test_backends import EXPERTS, drawn, leaves
from uni_moe.model.backends.base import LowRank
from uni_moe.model.backends.choose import backend_of
from uni_moe.model.backends.elementwise import TorchElementwise
from uni_moe.model.backends.fused import Fused
from uni_moe.model.backends.grouped import grouped
from uni_moe.model.backends.reference import reference
from uni_moe.routes import Routes

pytestmark = pytest.mark.gpu
WAYS = {"reference": reference, "grouped": grouped, "fused": Fused(TorchElementwise())}
if torch.cuda.is_available():
    from uni_moe.model.backends.kernels import KernelElementwise

    WAYS["kernels"] = Fused(KernelElementwise())
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}  # of the largest value


def placed(case, place, dtype):
    """Return a case's numbers elsewhere, as leaves."""

    def there(tensor, dtype=dtype):
        return tensor.detach().to(place, dtype).requires_grad_()

    def delta(one):
        return one and LowRank(there(one.down_ErI), there(one.up_EOr), one.scale)

    x, share, chosen, weights = case
    moved = replace(
        weights,
        gate_up_EJD=there(weights.gate_up_EJD),
        down_EDI=there(weights.down_EDI),
        gate_up_delta=delta(weights.gate_up_delta),
        down_delta=delta(weights.down_delta),
    )
    return there(x), there(share, torch.float32), chosen.to(place), moved


def computed(way, x, share, chosen, weights):
    """Return what comes out and the gradient of everything that went in, in float32 on the CPU."""
    asked = leaves(x, share, weights)
    y = way(x, share, chosen, weights)
    towards = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y)
    found = {
        "y": y,
        **dict(zip(asked, torch.autograd.grad(y, asked.values(), towards), strict=True)),
    }
    return {name: tensor.detach().float().cpu() for name, tensor in found.items()}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("busy", [EXPERTS, 3, 1])
@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_gpu_computes_what_a_cpu_does(way, low_rank, busy, dtype):
    case = placed(drawn(low_rank=low_rank, busy=busy), "cpu", dtype)  # rounded for both
    wanted = computed(reference, *placed(case, "cpu", torch.float32))
    found = computed(way, *placed(case, "cuda", dtype))
    for name, tensor in wanted.items():
        error = (found[name] - tensor).abs().max() / tensor.abs().max()
        assert error <= TOLERANCE[dtype], f"{name} is off by {error:.1e}"


@pytest.mark.parametrize("way", ["fused", "grouped"])
def test_a_gpu_takes_the_grouped_product_for_little_work(way):
    _, _, chosen, weights = placed(drawn(), "cuda", torch.float32)
    assert backend_of(Routes(experts=way), chosen, weights) is grouped
