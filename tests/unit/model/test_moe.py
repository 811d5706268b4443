import pytest
import torch
from torch.nn import functional as F

from uni_moe.model.experts import Experts
from uni_moe.model.moe import SparseFeedForward
from uni_moe.model.router import Router


def layer(seed=0, experts=5, top_k=2):
    torch.manual_seed(seed)
    built = SparseFeedForward(8, 12, experts, top_k)
    with torch.no_grad():
        built.router.weight.normal_()
        built.experts.gate_up_proj.normal_(std=0.3)
        built.experts.down_proj.normal_(std=0.3)
    return built


def by_hand(built, x):
    """The published loop: every token asks its best experts."""
    out = []
    for token in x:
        logits = built.router.weight @ token
        best = logits.topk(built.router.top_k)
        shares = best.values.softmax(-1)
        total = torch.zeros_like(token)
        for expert, share in zip(best.indices.tolist(), shares, strict=True):
            gate, up = (built.experts.gate_up_proj[expert] @ token).chunk(2)
            total = total + share * (built.experts.down_proj[expert] @ (F.silu(gate) * up))
        out.append(total)
    return torch.stack(out)


def test_the_layer_equals_the_loop_forward_and_backward():
    one, two = layer(), layer()
    x = torch.randn(9, 8)
    a, b = one(x), by_hand(two, x)
    torch.testing.assert_close(a, b)
    a.square().sum().backward()
    b.square().sum().backward()
    for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


@pytest.mark.parametrize("top_k", [1, 3, 5])
def test_a_token_may_visit_any_number_of_experts(top_k):
    built = layer(top_k=top_k)
    x = torch.randn(7, 8)
    torch.testing.assert_close(built(x), by_hand(built, x))
    assert built.routing.expert_TK.shape == (7, top_k)


def test_the_shape_of_the_input_is_kept():
    built = layer()
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(built(x), built(x.flatten(0, 1)).view(2, 3, 8))


def test_an_expert_without_visits_still_has_a_gradient():
    built = layer()
    with torch.no_grad():
        built.router.weight.zero_()
        built.router.weight[:2] = 1.0
    built(torch.ones(4, 8)).sum().backward()
    grad = built.experts.down_proj.grad
    assert grad is not None
    assert grad[4].abs().sum() == 0


def test_weights_equal_the_full_softmax_renormalized():
    router = Router(8, 5, 2)
    routing = router(torch.randn(7, 8))
    full = routing.logits_TE.softmax(-1).gather(1, routing.expert_TK)
    torch.testing.assert_close(routing.weight_TK, full / full.sum(-1, keepdim=True))


def test_every_visit_is_counted():
    routing = Router(8, 5, 2)(torch.randn(7, 8))
    assert routing.load_E.sum() == 14


def test_shares_of_half_precision_are_softmaxed_in_single():
    torch.manual_seed(0)
    router = Router(8, 5, 2).to(torch.bfloat16)
    with torch.no_grad():
        router.weight.normal_()
    routing = router(torch.randn(50, 8, dtype=torch.bfloat16))
    chosen = routing.logits_TE.gather(1, routing.expert_TK)
    by_hand = chosen.double().exp() / chosen.double().exp().sum(1, keepdim=True)
    assert routing.logits_TE.dtype == torch.bfloat16
    torch.testing.assert_close(routing.weight_TK, by_hand.float(), atol=1e-6, rtol=0)
    assert (chosen.softmax(-1).float() - by_hand).abs().max() > 1e-4


def test_a_half_precision_layer_stays_one():
    built = layer().to(torch.bfloat16)
    x = torch.randn(9, 8, dtype=torch.bfloat16)
    assert built(x).dtype == torch.bfloat16
    torch.testing.assert_close(built(x), by_hand(built, x), atol=0.05, rtol=0.05)


def test_shares_of_a_token_sum_to_one_and_its_experts_are_the_best_two():
    torch.manual_seed(0)
    router = Router(8, 5, 2)
    routing = router(torch.randn(40, 8))
    torch.testing.assert_close(routing.weight_TK.sum(1), torch.ones(40))
    for logits, experts in zip(routing.logits_TE.tolist(), routing.expert_TK.tolist(), strict=True):
        assert experts == sorted(range(5), key=lambda e: -logits[e])[:2]


def test_load_counts_each_expert_as_a_loop_does():
    torch.manual_seed(0)
    router = Router(8, 5, 2)
    with torch.no_grad():
        router.weight.normal_()
        router.weight[1] = 0.0
    routing = router(torch.randn(30, 8))
    flat = [e for experts in routing.expert_TK.tolist() for e in experts]
    assert routing.load_E.tolist() == [flat.count(e) for e in range(5)]
    keep = torch.arange(30) % 3 == 0
    flat = [e for experts in routing.expert_TK[keep].tolist() for e in experts]
    assert routing.where(keep).load_E.tolist() == [flat.count(e) for e in range(5)]


def test_a_masked_expert_leaves_its_share_to_the_others():
    built = layer()
    x = torch.randn(12, 8)
    free = built.router(x)
    built.router.masked = (3,)
    without = built.router(x)
    logits = free.logits_TE.clone()
    logits[:, 3] = -torch.inf
    best = logits.topk(2)
    assert torch.equal(without.expert_TK, best.indices)
    torch.testing.assert_close(without.weight_TK, best.values.softmax(-1))
    torch.testing.assert_close(without.weight_TK.sum(1), torch.ones(12))
    untouched = (free.expert_TK != 3).all(1)
    assert 0 < untouched.sum() < 12
    assert torch.equal(without.weight_TK[untouched], free.weight_TK[untouched])


def test_idle_experts_change_nothing_and_get_no_gradient():
    built = layer()
    x = torch.randn(3, 8)
    idle = built.router(x).load_E == 0
    assert 0 < idle.sum() < 5
    before = built(x)
    before.square().sum().backward()
    for packed in (built.experts.gate_up_proj, built.experts.down_proj):
        assert packed.grad[idle].abs().max() == 0
        assert (packed.grad[~idle].flatten(1).abs().amax(1) > 0).all()
        with torch.no_grad():
            packed[idle] = 9.0
    torch.testing.assert_close(built(x), before)


def test_a_fresh_router_starts_near_an_even_choice():
    torch.manual_seed(0)
    assert Router(512, 8, 2).weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_a_masked_experts_weights_reach_no_output():
    built = layer()
    x = torch.randn(12, 8)
    free = built(x)
    built.router.masked = (3,)
    without = built(x)
    with torch.no_grad():
        built.experts.gate_up_proj[3] = 9.0
        built.experts.down_proj[3] = 9.0
    torch.testing.assert_close(built(x), without)
    assert (free - without).abs().max() > 1e-3


def test_fresh_experts_start_as_small_as_the_language_models_own():
    torch.manual_seed(0)
    for weight in Experts(3, 64, 96).parameters():
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
