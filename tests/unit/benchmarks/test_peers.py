"""Whatever is measured beside ours computes the same from the same weights, or as much."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import decode, layer, lora, peers, step
from benchmarks.answers import at_most
from benchmarks.peers import Sizes, Stacks
from benchmarks.places import Clock
from benchmarks.rounds import Contender
from uni_moe.platform import take
from uni_moe.routes import Routes
from uni_moe.train.learner import PhaseModule

SIZES = Sizes(tokens=24, width=16, inner=24, experts=4, top_k=2, dtype="float32")
TINY = decode.Shape(batch=3, width=16, inner=24, layers=2, heads=2, vocabulary=50, prompt=5, new=6)
SMALL = step.Shape(positions=24, width=16, inner=24, layers=2, heads=2, vocabulary=60, rank=2)
others = pytest.mark.parametrize("name", [one for one in peers.LAYERS if one != "ours"])


def passes(built, sizes=SIZES):
    """Return what comes out and the gradient of the input."""
    x, towards = layer.inputs(sizes, 0, "cpu")(5)
    y = built(x)
    y.backward(towards)
    return y.detach(), x.grad


def packed(built):
    """Return the gradients of a layer's weights, as ours packs them."""
    grads = {name: p.grad for name, p in built.named_parameters() if p.grad is not None}
    experts = [name for name in grads if "gate_proj" in name]
    if not experts:
        return sorted(grads.values(), key=torch.numel)
    prefixes = [name.partition("gate_proj")[0] for name in experts]
    both = [
        torch.cat([grads[f"{one}{part}_proj.weight"] for part in ("gate", "up")])
        for one in prefixes
    ]
    down = [grads[f"{one}down_proj.weight"] for one in prefixes]
    (router,) = [grad for name, grad in grads.items() if "experts" not in name]
    return [router, torch.stack(down), torch.stack(both)]


@others
@pytest.mark.parametrize("experts", [4, 9])
def test_a_peers_layer_computes_what_ours_does(name, experts):
    sizes = replace(SIZES, experts=experts)
    stacks = Stacks.draw(sizes, 1, "cpu")
    ours, theirs = peers.ours(stacks), peers.LAYERS[name](stacks)
    for a, b in zip(passes(ours, sizes), passes(theirs, sizes), strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-4)
    for a, b in zip(packed(ours), packed(theirs), strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-4)


@others
def test_a_peers_layer_does_so_in_half_precision(name):
    sizes = replace(SIZES, dtype="bfloat16")
    stacks = Stacks.draw(sizes, 1, "cpu")
    wanted, found = passes(peers.ours(stacks), sizes), passes(peers.LAYERS[name](stacks), sizes)
    assert found[0].dtype == torch.bfloat16
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(b, a, atol=0.06, rtol=0.06)


@pytest.mark.parametrize("name", [one for one in lora.LAYERS if one != "ours"])
def test_a_peers_adapters_compute_what_ours_do(name):
    stacks, factors = Stacks.draw(SIZES, 1, "cpu"), lora.Factors.draw(SIZES, 3, 2, "cpu")
    ours, theirs = lora.ours(stacks, factors), lora.LAYERS[name](stacks, factors)
    bare = passes(peers.ours(stacks))[0]
    found = passes(ours)
    assert (found[0] - bare).abs().max() > 0.01
    for a, b in zip(found, passes(theirs), strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-4)
    learned = [
        {name for name, p in one.named_parameters() if p.grad is not None} for one in (ours, theirs)
    ]
    assert all("lora_" in name for names in learned for name in names)
    assert len(learned[0]) == 4


def flops(built, x):
    with FlopCounterMode(display=False) as counter:
        built(x).sum().backward()
    return counter.get_total_flops()


def test_the_dense_layer_computes_as_much_as_the_visited_experts():
    stacks = Stacks.draw(SIZES, 1, "cpu")
    x, _ = layer.inputs(SIZES, 0, "cpu")(0)
    wide, _ = layer.inputs(replace(SIZES, tokens=SIZES.tokens * SIZES.top_k), 0, "cpu")(0)
    router = 3 * 2 * SIZES.tokens * SIZES.width * SIZES.experts
    assert flops(peers.loop(stacks), x) - router == flops(peers.dense(stacks), wide)


def test_every_call_reads_an_input_of_its_own_and_the_same_for_all():
    draw, again = layer.inputs(SIZES, 0, "cpu"), layer.inputs(SIZES, 0, "cpu")
    stacks = Stacks.draw(SIZES, 0, "cpu")
    assert torch.equal(draw(3)[0], again(3)[0])
    loads = {
        tuple((draw(i)[0] @ stacks.router_ED.T).topk(2).indices.flatten().bincount(minlength=4))
        for i in range(8)
    }
    assert len(loads) > 4


def test_a_call_leaves_no_gradient_behind():
    built = peers.ours(Stacks.draw(SIZES, 0, "cpu"))
    drawn = layer.inputs(SIZES, 0, "cpu")(0)
    seen = []
    drawn[0].register_post_accumulate_grad_hook(lambda x: seen.append(x.grad.clone()))
    layer.forward_backward(built, lambda _: drawn)(0)()
    assert seen[0].abs().sum() > 0
    assert [one.grad for one in (drawn[0], *built.parameters())] == [None] * 4


def test_memory_is_that_of_weights_and_of_a_call():
    ours, peer = Contender("ours"), Contender("peer")
    added = {ours: 10**9, peer: None}
    sizes = replace(SIZES, experts=10, width=10_000, inner=10_000, dtype="bfloat16")
    assert sizes.weight_bytes == 6 * 10**9
    assert [n.found for n in layer.memory_of(added, sizes, {})] == [7.0]
    added[peer] = 8 * 10**9
    *_, ratio = layer.memory_of(added, sizes, {(ours, peer): at_most(0.65)})
    assert (ratio.found, ratio.reached("here")) == (0.5, True)
    *_, unknown = layer.memory_of(added, sizes, {(Contender("gone"), peer): at_most(0.65)})
    assert (unknown.found, unknown.reached("here")) == (None, False)


def test_memory_is_read_in_a_time_that_a_machine_can_take():
    assert 1e8 < decode.read_bandwidth(Clock(1, "cpu")) < 1e13


def test_both_networks_write_the_same_words():
    assert decode.differing(TINY, 0, "cpu").found == 0


def test_the_products_read_every_active_weight_once():
    model = decode.network(replace(TINY, batch=1), 0, "cpu")
    once = decode.products(model, replace(TINY, batch=1, new=1))(0)
    with FlopCounterMode(display=False) as counter:
        once()
    inactive = 2 * 2 * 3 * 16 * 24  # layers, idle experts, matrices
    weights = [p.numel() for name, p in model.named_parameters() if p.dim() > 1]
    embeddings, routers = 50 * 16, 2 * 4 * 16
    active = sum(weights) - inactive - embeddings - routers
    assert counter.get_total_flops() == 2 * active
    alone = replace(TINY, batch=1)
    assert decode.active_bytes(model, alone) == 4 * active * alone.new


def test_the_products_visit_the_experts_that_a_written_answer_visits():
    model, seen = decode.network(TINY, 0, "cpu"), []
    layer = model.sparse_layers()[1]
    layer.register_forward_hook(lambda *_: seen.append(layer.routing.load_E.tolist()))
    answer = decode._generate(model, TINY, 0)
    seen.clear()  # the prompt
    answer()
    assert decode.visits_of_answer(model, TINY)[1] == seen[: TINY.new]
    assert len({tuple(load) for load in seen}) > 1


@pytest.mark.parametrize("whose", ["ours", *decode.PEERS])
def test_steps_of_one_token_alone_are_timed(whose):
    lengths = []
    ours = decode.network(TINY, 0, "cpu")
    theirs = decode.mixtral(TINY, ours)
    model = ours if whose == "ours" else theirs
    model.get_input_embeddings().register_forward_hook(
        lambda _, ids, __: lengths.append(ids[0].shape[1])
    )
    if whose == "ours":
        call = decode._generate(ours, TINY, 0)
    else:
        call = decode._theirs(theirs, decode.PEERS[whose], TINY, 0)
    assert lengths == [TINY.prompt - 1]
    lengths.clear()
    assert call().shape == (TINY.batch, TINY.new)
    assert lengths == [1] * TINY.new


def losses(trainer, shape, steps=4, lay=dict):
    return [trainer(lay(step.draw(shape, index))) for index in range(steps)]


@pytest.mark.parametrize("lay", [dict, step.packed])
def test_full_steps_of_both_ways_have_the_same_losses(lay):
    shape = replace(SMALL, what="full")
    take(Routes())
    model = step.network(shape, 0)
    theirs = losses(step.Published(step.published(shape, model)), shape)
    ours = losses(step.Ours(PhaseModule(step.learner_of(model, shape))), shape, lay=lay)
    assert len(set(ours)) == 4
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_steps_with_adapters_begin_alike_and_train_as_many_linear_maps():
    shape = replace(SMALL, what="tune")
    model = step.network(shape, 0)
    wrapped = step.published(shape, model)
    first = losses(step.Published(wrapped), shape, steps=1)
    assert losses(
        step.Ours(PhaseModule(step.learner_of(model, shape))), shape, steps=1
    ) == pytest.approx(first, rel=1e-5)
    learned = [name for name, p in wrapped.named_parameters() if p.requires_grad]
    attention, experts, routers = 2 * 4 * 2, 1 * 4 * 3 * 2, 1
    assert len(learned) == attention + experts + routers


def test_a_batch_is_filled_and_labelled_as_told():
    shape = step.Shape(batch=64)
    batch = step.draw(shape, 0)
    filled = batch["attention_mask"].float().mean()
    labelled = (batch["labels"] != step.IGNORED).sum() / batch["attention_mask"].sum()
    assert float(filled) == pytest.approx(shape.filled_share, abs=0.05)
    assert float(labelled) == pytest.approx(shape.label_share, abs=0.01)
    assert not (batch["labels"] != step.IGNORED)[batch["attention_mask"] == 0].any()
