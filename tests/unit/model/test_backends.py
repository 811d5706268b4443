"""Every way to run packed experts against the plain one: values and gradients."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from uni_moe.model.backends.base import LowRank, Weights, visits_of
from uni_moe.model.backends.choose import FEW_EXPERTS, backend_of
from uni_moe.model.backends.elementwise import NativeElementwise, TorchElementwise
from uni_moe.model.backends.few import FEW_TOKENS, Few, are_few
from uni_moe.model.backends.fused import Fused, pad_rows
from uni_moe.model.backends.grouped import grouped
from uni_moe.model.backends.plan import Plan
from uni_moe.model.backends.reference import reference
from uni_moe.native import native
from uni_moe.routes import Routes

TOKENS, WIDTH, INNER, EXPERTS, TOP_K, RANK = 24, 16, 32, 4, 2, 3
COMPILED = native()
WAYS = {
    "reference": reference,
    "grouped": grouped,
    "fused": Fused(TorchElementwise()),
}
FEW = {}
if COMPILED is not None:
    WAYS["native"] = Fused(NativeElementwise(COMPILED))
    FEW["few"] = Few(COMPILED)
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def drawn(*, low_rank=False, dtype=torch.float32, experts=EXPERTS, seed=0, busy=EXPERTS):
    """Return x, shares, experts and weights; only the first `busy` experts are visited."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        made = torch.randn(*shape, generator=generator) * scale
        return made.to(dtype).requires_grad_()

    chosen = torch.rand(TOKENS, busy, generator=generator).topk(min(TOP_K, busy), dim=-1).indices
    weights = Weights(
        normal(experts, 2 * INNER, WIDTH, scale=WIDTH**-0.5),
        normal(experts, WIDTH, INNER, scale=INNER**-0.5),
    )
    if low_rank:
        enter = LowRank(normal(experts, RANK, WIDTH), normal(experts, 2 * INNER, RANK), 0.5)
        leave = LowRank(normal(experts, RANK, INNER), normal(experts, WIDTH, RANK), 0.25)
        weights = replace(weights, gate_up_delta=enter, down_delta=leave)
    share = torch.rand(TOKENS, chosen.shape[1], generator=generator).requires_grad_()
    return normal(TOKENS, WIDTH), share, chosen, weights


def leaves(x, share, weights):
    found = {"x": x, "share": share, "gate_up": weights.gate_up_EJD, "down": weights.down_EDI}
    for name, delta in (("enter", weights.gate_up_delta), ("leave", weights.down_delta)):
        if delta is not None:
            found |= {f"{name} A": delta.down_ErI, f"{name} B": delta.up_EOr}
    return found


def run(way, x, share, chosen, weights):
    """Return what comes out and the gradient of everything that went in."""
    asked = leaves(x, share, weights)
    y = way(x, share, chosen, weights)
    towards = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y.dtype)
    found = torch.autograd.grad(y, list(asked.values()), towards)
    return {"y": y.detach(), **dict(zip(asked, found, strict=True))}


def agree(found, wanted, tolerance):
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        error = (found[name] - tensor).abs().max() / tensor.abs().max()
        assert error <= tolerance, f"{name} is off by {error:.1e}"


@every_way
@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("busy", [EXPERTS, 3, 1])
def test_every_way_computes_what_the_plain_one_does(way, low_rank, busy):
    case = drawn(low_rank=low_rank, busy=busy)
    agree(run(way, *case), run(reference, *case), 2e-6)


@every_way
def test_factors_in_pefts_layout_run_as_they_are(way):
    x, share, chosen, weights = drawn()
    generator = torch.Generator().manual_seed(3)

    def delta(inner, outer, rank=8):  # in peft's second factor experts stand fastest
        down = torch.randn(EXPERTS * rank, inner, generator=generator).view(EXPERTS, rank, inner)
        up = torch.randn(outer, rank * EXPERTS, generator=generator)
        return LowRank(down, up.view(outer, rank, EXPERTS).permute(2, 0, 1), 0.5)

    adapted = replace(
        weights, gate_up_delta=delta(WIDTH, 2 * INNER), down_delta=delta(INNER, WIDTH)
    )
    case = (x, share, chosen, adapted)
    torch.testing.assert_close(way(*case), reference(*case), atol=2e-4, rtol=2e-5)


@every_way
def test_half_precision_loses_no_more_than_its_own_rounding(way):
    case = drawn(low_rank=True, dtype=torch.bfloat16)
    exact = drawn(low_rank=True)
    wanted = {name: tensor.float() for name, tensor in run(reference, *exact).items()}
    found = {name: tensor.float() for name, tensor in run(way, *case).items()}
    agree(found, wanted, 0.04)


@pytest.mark.parametrize("way", (every := WAYS | FEW).values(), ids=every)
@pytest.mark.parametrize("router", range(3))
@torch.no_grad()  # the way of few tokens has no gradients
def test_identical_experts_are_the_dense_feed_forward_whatever_the_router(way, router):
    x, share, chosen, weights = drawn(seed=router)
    same = Weights(
        weights.gate_up_EJD[:1].expand(EXPERTS, -1, -1).contiguous(),
        weights.down_EDI[:1].expand(EXPERTS, -1, -1).contiguous(),
    )
    gate, up = F.linear(x, same.gate_up_EJD[0]).chunk(2, dim=-1)
    dense = F.linear(F.silu(gate) * up, same.down_EDI[0])
    found = way(x, share.softmax(-1), chosen, same)
    torch.testing.assert_close(found, dense, atol=1e-6, rtol=0)


@pytest.mark.skipif(COMPILED is None, reason="this machine has no C compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 3, TOKENS])
def test_few_tokens_in_compiled_code_are_the_plain_way(tokens, dtype):
    x, share, chosen, weights = drawn(dtype=dtype, experts=6, busy=5)
    x, share, chosen = x[:tokens], share[:tokens], chosen[:tokens]
    with torch.no_grad():
        assert are_few(chosen, weights)
        found = Few(COMPILED)(x, share, chosen, weights)
        exact = Weights(weights.gate_up_EJD.float(), weights.down_EDI.float())
        expected = reference(x.float(), share, chosen, exact)
    bound = 1e-5 if dtype is torch.float32 else 0.04
    torch.testing.assert_close(found.float(), expected, atol=bound, rtol=bound)


def test_few_tokens_are_few_without_gradients_and_without_adapters():
    _, _, chosen, weights = drawn()
    assert not are_few(chosen, weights)
    with torch.no_grad():
        assert are_few(chosen, weights)
        assert not are_few(chosen, drawn(low_rank=True)[3])
        assert not are_few(chosen, drawn(dtype=torch.float64)[3])
        assert not are_few(chosen.repeat(FEW_TOKENS, 1), weights)


@every_way
def test_a_token_that_is_no_number_spoils_its_own_row_and_no_other(way):
    x, share, chosen, weights = drawn()
    with torch.no_grad():
        x[5, 3] = torch.nan
    y = way(x, share, chosen, weights)
    assert y[5].isnan().all()
    assert y[torch.arange(TOKENS) != 5].isfinite().all()


@every_way
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gate", [-1000.0, -89.0, 90.0, 1000.0])
def test_a_gate_far_from_zero_makes_no_number_that_is_none(way, dtype, gate):
    x, share, chosen, weights = drawn(dtype=dtype)
    with torch.no_grad():
        x[:, 0] = 1.0
        weights.gate_up_EJD[:, :INNER] = 0.0
        weights.gate_up_EJD[:, :INNER, 0] = gate
    for name, found in run(way, x, share, chosen, weights).items():
        assert found.isfinite().all(), name
    with torch.no_grad():
        exact = Weights(weights.gate_up_EJD.float(), weights.down_EDI.float())
        plain = reference(x.float(), share, chosen, exact)
        close = way(x, share, chosen, weights).float()
    torch.testing.assert_close(close, plain, atol=0.05 * float(plain.abs().max()) + 1e-6, rtol=0.05)


@every_way
def test_frozen_weights_get_no_gradient_and_adapters_do(way):
    x, share, chosen, weights = drawn(low_rank=True)
    frozen = replace(
        weights, gate_up_EJD=weights.gate_up_EJD.detach(), down_EDI=weights.down_EDI.detach()
    )
    way(x, share, chosen, frozen).sum().backward()
    assert weights.gate_up_EJD.grad is None
    assert all(leaf.grad is not None for leaf in (x, share, weights.down_delta.down_ErI))


@every_way
def test_columns_of_another_tensor_are_as_good_as_rows_of_their_own(way):
    x, share, chosen, weights = drawn()
    wide = torch.cat([x, x], dim=1).detach().requires_grad_()
    a = way(wide[:, :WIDTH], share, chosen, weights)
    torch.testing.assert_close(a, way(x, share, chosen, weights), atol=0, rtol=0)


def test_rows_are_rounded_up_and_everybody_is_found_again():
    *_, chosen, _ = drawn(busy=3)
    plan = Plan.of(visits_of(chosen, EXPERTS), 8)
    assert all((rows.stop - rows.start) % 8 == 0 for rows in plan.rows)
    assert [e for e, _ in plan.busy()] == [0, 1, 2]
    assert plan.real_P.sum() == TOKENS * TOP_K
    assert plan.visit_P[~plan.real_P].count_nonzero() == 0
    share = torch.rand(TOKENS, TOP_K)
    assert torch.equal(plan.shares(share)[plan.place_TK], share)
    assert plan.shares(share)[~plan.real_P].count_nonzero() == 0
    for token in range(TOKENS):
        assert plan.token_P[plan.place_TK[token]].tolist() == [token] * TOP_K
    assert plan.place_TK.flatten().unique().numel() == TOKENS * TOP_K


@pytest.mark.parametrize(
    ("route", "experts", "width", "device", "wanted"),
    [
        ("reference", 64, 16, "cpu", reference),
        ("grouped", 2, 16, "cpu", grouped),
        ("grouped", 2, 12, "cpu", reference),
        ("fused", FEW_EXPERTS, 12, "cpu", Fused),
        ("fused", FEW_EXPERTS + 1, 16, "cpu", grouped),
        ("fused", 4, 16, "meta", grouped),
        ("fused", 4, 10**8, "meta", Fused),
    ],
)
def test_a_layer_runs_as_the_process_chose_and_as_it_can(route, experts, width, device, wanted):
    with torch.device(device):
        weights = Weights(torch.empty(experts, 16, width), torch.empty(experts, width, 8))
    found = backend_of(Routes(experts=route), torch.zeros(99, 2, dtype=torch.long), weights)
    assert found is wanted or type(found) is wanted


@pytest.mark.skipif(COMPILED is None, reason="this machine has no C compiler")
def test_the_number_of_threads_changes_no_bit_of_compiled_code():
    generator, threads, found = torch.Generator().manual_seed(0), torch.get_num_threads(), []
    gate_up, share = torch.randn(9, 14, generator=generator), torch.rand(9, generator=generator)
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            out = [torch.empty(9, 7), torch.empty(9, 14), torch.empty(9)]
            NativeElementwise(COMPILED).backward(gate_up, share, gate_up[:, :7].clone(), *out)
            found.append(out)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@pytest.mark.skipif(COMPILED is None, reason="this machine has no C compiler")
def test_loading_compiled_code_leaves_tiny_numbers_as_they_are():
    tiny = torch.tensor([1e-40])
    assert float(tiny * 1.0) > 0


def test_matrix_units_have_experts_rounded_up_further(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert pad_rows(torch.bfloat16, "cpu") == 32
    assert pad_rows(torch.float32, "cpu") == pad_rows(torch.bfloat16, "cuda") == 8
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert pad_rows(torch.bfloat16, "cpu") == 8
