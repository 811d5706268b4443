"""Losses beside the next token's, against slow versions by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from uni_moe.model.config import KINDS
from uni_moe.model.losses import PAIRS, Whole, alike, balance, beside, first, off_target
from uni_moe.model.router import Routing

IMAGE, AUDIO, TEXT = (KINDS.index(kind) for kind in ("image", "audio", "text"))


def routed(logits):
    logits = torch.tensor(logits)
    weight, expert = logits.topk(2)
    return Routing(expert, weight.softmax(-1), logits)


def random_routing(tokens, experts=4, seed=0):
    return routed(
        torch.randn(tokens, experts, generator=torch.Generator().manual_seed(seed)).tolist()
    )


def shares(routing):
    return [
        [math.exp(x) / sum(map(math.exp, row)) for x in row] for row in routing.logits_TE.tolist()
    ]


def test_even_routing_scores_one():
    even = routed([[float(i == j) for j in range(4)] for i in range(4)])
    assert balance(even, first(even)).item() == pytest.approx(1.0)


def test_all_tokens_at_one_expert_score_the_number_of_experts():
    one = routed([[50.0, 0.0, 0.0, 0.0]] * 5)
    assert balance(one, first(one)).item() == pytest.approx(4.0)


def test_balance_by_hand():
    one = random_routing(9)
    p, best = shares(one), [row.index(max(row)) for row in one.logits_TE.tolist()]
    expected = 4 * sum(sum(row[e] for row in p) / 9 * best.count(e) / 9 for e in range(4))
    assert balance(one, first(one)).item() == pytest.approx(expected)


def test_distance_from_the_wished_experts_by_hand():
    one = random_routing(7)
    kind, row = [IMAGE, IMAGE, TEXT, AUDIO, TEXT, IMAGE, AUDIO], [0, 0, 0, 0, 1, 1, 1]
    wished = {"image": [0, 3], "audio": [1]}
    p = shares(one)
    by_row = [0.0, 0.0]
    for t in range(7):
        name = KINDS[kind[t]]
        if name in wished:
            away = sum(abs(p[t][e] - (e in wished[name])) for e in range(4)) / 4
            by_row[row[t]] += away / row.count(row[t])
    found = off_target(one, torch.tensor(kind), torch.tensor(row), kinds=KINDS, wished=wished)
    assert found.item() == pytest.approx(sum(by_row))


def test_likeness_of_modalities_by_hand():
    one = random_routing(6, seed=2)
    kind, row = [IMAGE, TEXT, TEXT, AUDIO, TEXT, TEXT], [0, 0, 0, 0, 1, 1]
    p = shares(one)

    def q(name):
        own = [p[t] for t in range(6) if row[t] == 0 and KINDS[kind[t]] == name]
        mean = [sum(column) / len(own) for column in zip(*own, strict=True)]
        return [math.exp(x) / sum(map(math.exp, mean)) for x in mean]

    pairs = [("image", "audio"), ("image", "text"), ("audio", "text")]
    kl = [
        sum(b * math.log(b / a) for a, b in zip(q(first), q(second), strict=True))
        for first, second in pairs
    ]
    first_row = sum(1 - x / 4 for x in kl) / 3
    found = alike(one, torch.tensor(kind), torch.tensor(row), kinds=KINDS)
    assert found.item() == pytest.approx(first_row)  # text alone has no pair
    assert set(pairs) <= set(PAIRS)


def test_shares_of_a_batchs_parts_add_up_to_its_losses():
    settings = {
        "balance_coefficient": 1.0,
        "target_coefficient": 1.0,
        "divergence_coefficient": 1.0,
    }
    config = SimpleNamespace(**settings, expert_targets={"image": [0], "audio": [1, 2]})
    one, kind = (
        random_routing(9),
        torch.tensor([IMAGE, TEXT, IMAGE, AUDIO, TEXT, TEXT, TEXT, IMAGE, IMAGE]),
    )
    row = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    expected = beside(config, {3: one}, kind, row)
    whole = Whole(3, {3: first(one)})
    parts = []
    for rows in ((0,), (1, 2)):
        own = torch.isin(row, torch.tensor(rows))
        parts.append(beside(config, {3: one.where(own)}, kind[own], row[own] - rows[0], whole))
    assert expected.keys() == {"balance", "target", "divergence"}
    for name, loss in expected.items():
        assert loss.item() == pytest.approx(sum(part[name].item() for part in parts), rel=1e-6)


def test_losses_are_off_by_default_and_add_up_where_they_are_on(config, batch):
    from uni_moe.model.network import UniMoeForConditionalGeneration

    torch.manual_seed(0)
    model = UniMoeForConditionalGeneration(config)
    plain = model(**batch)
    assert plain.aux_losses == {}
    config.balance_coefficient, config.divergence_coefficient = 0.5, 0.25
    config.target_coefficient, config.expert_targets = 2.0, {"image": [0], "video": [1]}
    out = model(**batch)
    assert set(out.aux_losses) == {"balance", "target", "divergence"}
    expected = plain.loss + sum(
        getattr(config, f"{name}_coefficient") * loss for name, loss in out.aux_losses.items()
    )
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    out.loss.backward()
    assert model.sparse_layers()[0].router.weight.grad.abs().sum() > 0


def test_padding_takes_no_part(config, batch):
    from uni_moe.model.network import UniMoeForConditionalGeneration

    torch.manual_seed(0)
    config.balance_coefficient = config.divergence_coefficient = 1.0
    model = UniMoeForConditionalGeneration(config).eval()
    before = model(**batch).aux_losses
    more = {
        name: torch.nn.functional.pad(batch[name], (0, 3), value=fill)
        for name, fill in (("input_ids", 0), ("attention_mask", 0), ("labels", -100))
    }
    after = model(**{**batch, **more}).aux_losses
    for name, loss in before.items():
        assert after[name].item() == pytest.approx(loss.item(), rel=1e-5)


def test_recomputed_activations_lose_no_gradient_of_a_routers_loss(config, batch):
    from uni_moe.model.network import UniMoeForConditionalGeneration

    config.balance_coefficient = config.divergence_coefficient = 1.0
    torch.manual_seed(0)
    model = UniMoeForConditionalGeneration(config).train()
    router, ran = model.sparse_layers()[0].router, []
    router.register_forward_hook(lambda *_: ran.append(1))
    grads = []
    for recompute in (False, True):
        model.zero_grad()
        if recompute:
            model.gradient_checkpointing_enable()
        model(**batch, use_cache=False).loss.backward()
        grads.append(router.weight.grad.clone())
    torch.testing.assert_close(grads[1], grads[0])
    assert len(ran) == 1 + 2


def test_a_routers_loss_without_a_graph_is_refused(config, batch):
    from uni_moe.errors import ConfigError
    from uni_moe.model.network import UniMoeForConditionalGeneration

    config.balance_coefficient = 1.0
    model = UniMoeForConditionalGeneration(config).train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ConfigError, match="cannot learn from balance"):
        model(**batch, use_cache=False)
