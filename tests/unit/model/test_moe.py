import torch
from torch.nn import functional as F

from uni_moe.model.moe import SparseFeedForward
from uni_moe.model.router import Router


def layer(seed=0, experts=5):
    torch.manual_seed(seed)
    built = SparseFeedForward(8, 12, experts, 2)
    with torch.no_grad():
        built.router.weight.normal_()
        built.experts.gate_up_proj.normal_(std=0.3)
        built.experts.down_proj.normal_(std=0.3)
    return built


def by_hand(built, x):
    """The published loop: every token asks its two best experts."""
    out = []
    for token in x:
        logits = built.router.weight @ token
        best = logits.topk(2)
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
