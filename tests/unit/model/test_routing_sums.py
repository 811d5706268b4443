import math

import pytest
import torch

from uni_moe.model.config import KINDS
from uni_moe.model.router import Router, Routing
from uni_moe.model.routing_sums import RoutingSums, routing_sums, stacked, unstacked

PADDING = len(KINDS)


def by_hand(routing, kind_T):
    """Return what one token after the other adds: modality -> visits, shares, entropy, tokens."""
    experts = routing.logits_TE.shape[1]
    found = {kind: [[0] * experts, [0.0] * experts, 0.0, 0] for kind in range(len(KINDS))}
    for token, kind in enumerate(kind_T.tolist()):
        if kind == PADDING:
            continue
        weights = [math.exp(value) for value in routing.logits_TE[token].tolist()]
        shares = [weight / sum(weights) for weight in weights]
        for expert in routing.expert_TK[token].tolist():
            found[kind][0][expert] += 1
        found[kind][1] = [a + b for a, b in zip(found[kind][1], shares, strict=True)]
        found[kind][2] -= sum(share * math.log(share) for share in shares if share)
        found[kind][3] += 1
    return found


def route(tokens, experts=5, top_k=2, masked=()):
    torch.manual_seed(0)
    router = Router(8, experts, top_k)
    with torch.no_grad():
        router.weight.mul_(100)
    router.masked = masked
    return router(torch.randn(tokens, 8)), torch.randint(0, PADDING + 1, (tokens,))


@pytest.mark.parametrize("masked", [(), (1, 3)])
def test_sums_by_modality_are_those_of_one_token_after_the_other(masked):
    routing, kind_T = route(200, masked=masked)
    found = routing_sums({3: routing}, kind_T)[3]
    share_ME = found.table_MX[:, found.experts : -2]
    for kind, (visits, shares, entropy, tokens) in by_hand(routing, kind_T).items():
        assert found.visits_ME[kind].tolist() == visits
        assert share_ME[kind].tolist() == pytest.approx(shares, abs=1e-4)
        assert float(found.entropy_M[kind]) == pytest.approx(entropy, abs=1e-4)
        assert int(found.tokens_M[kind]) == tokens


def test_sums_of_parts_add_up_to_the_whole():
    routing, kind_T = route(64)
    whole = routing_sums({0: routing, 2: routing}, kind_T)
    parts = [
        routing_sums({layer: _cut(routing, piece) for layer in (0, 2)}, kind_T[piece])
        for piece in (slice(0, 20), slice(20, 64))
    ]
    added = unstacked(stacked(parts[0]) + stacked(parts[1]), [0, 2])
    for layer, sums in whole.items():
        torch.testing.assert_close(added[layer].table_MX, sums.table_MX, rtol=1e-6, atol=1e-5)


def test_layers_keep_their_names_in_one_tensor():
    tables = {layer: RoutingSums(torch.full((5, 8), float(layer))) for layer in (7, 1, 4)}
    back = unstacked(stacked(tables), list(tables))
    assert {layer: float(sums.table_MX[0, 0]) for layer, sums in back.items()} == {1: 1, 4: 4, 7: 7}


def test_a_router_learns_nothing_from_being_watched():
    routing, kind_T = route(8)
    assert not routing_sums({0: routing}, kind_T)[0].table_MX.requires_grad


def _cut(routing, piece):
    return Routing(routing.expert_TK[piece], routing.weight_TK[piece], routing.logits_TE[piece])
