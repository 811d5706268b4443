from dataclasses import replace

import pytest
import torch

from uni_moe.errors import LineageError
from uni_moe.model.assembly import assemble, plan_assembly
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.merging import digest
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.router import Routing

SLOTS = ("base", "image", "base", "audio")


@pytest.fixture
def dense(config):
    torch.manual_seed(1)
    plain = UniMoeConfig.from_dict({**config.to_dict(), "sparse_layers": []})
    return UniMoeForConditionalGeneration(plain).eval()


def expert(dense, shift):
    return {
        name: tensor + shift
        for name, tensor in dense.state_dict().items()
        if ".layers.0.mlp." in name
    }


def sparse(config, dense, experts, slots, seed=0):
    base = dense.state_dict()
    plan = plan_assembly(base, experts, sparse_layers=[0], slots=slots, router_seed=seed)
    model = UniMoeForConditionalGeneration(config).eval()
    model.load_state_dict(assemble(plan, base, experts))
    return plan, model


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_identical_experts_equal_the_dense_network_whatever_the_router(config, dense, batch, seed):
    _, model = sparse(config, dense, {}, ("base",) * 4, seed)
    with torch.no_grad():
        model.language_model.model.layers[0].mlp.router.weight.normal_()
    a, b = model(**batch, full_logits=True).logits, dense(**batch, full_logits=True).logits
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_every_slot_holds_its_donor(config, dense):
    experts = {"image": expert(dense, 0.1), "audio": expert(dense, 0.2)}
    _, model = sparse(config, dense, experts, SLOTS)
    packed = model.language_model.model.layers[0].mlp.experts
    up = dense.language_model.model.layers[0].mlp.up_proj.weight
    down = dense.language_model.model.layers[0].mlp.down_proj.weight
    for slot, shift in enumerate((0.0, 0.1, 0.0, 0.2)):
        assert torch.equal(packed.gate_up_proj[slot, 64:], up + shift)
        assert torch.equal(packed.down_proj[slot], down + shift)


def test_the_receipt_names_the_origin_of_every_expert_tensor_and_router_row(config, dense):
    experts = {"image": expert(dense, 0.1), "audio": expert(dense, 0.2)}
    plan, model = sparse(config, dense, experts, SLOTS)
    origins = [o for o in plan.receipt()["origins"] if ".experts." in o["target"]]
    assert len(origins) == 4 * 3
    assert {origin["donor"] for origin in origins} == {"base", "image", "audio"}
    base = [o["sha256"] for o in origins if o["slot"] == 0]
    assert base == [o["sha256"] for o in origins if o["slot"] == 2]
    rows = plan.receipt()["origins"][len(origins) :]
    router = model.sparse_layers()[0].router.weight
    assert [o["sha256"] for o in rows] == [digest([row]) for row in router]
    assert {(o["donor"], o["source"]) for o in rows} == {("new", "normal, std 0.02, seed 0")}


def test_all_that_is_missing_is_told_at_once(dense):
    broken = expert(dense, 0.0)
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    broken[name] = broken[name][:3]
    del broken["language_model.model.layers.0.mlp.down_proj.weight"]
    with pytest.raises(LineageError) as error:
        plan_assembly(
            dense.state_dict(),
            {"image": broken},
            sparse_layers=[0],
            slots=("base", "image", "speech"),
            router_seed=0,
        )
    for said in ("no expert 'speech'", "is (3, 32)", "image has no", "down_proj"):
        assert said in str(error.value)


def test_a_layer_that_the_base_lacks_is_an_error(dense):
    base = {n: t for n, t in dense.state_dict().items() if "layers.0.mlp.up" not in n}
    with pytest.raises(LineageError, match=r"base has no .*up_proj"):
        plan_assembly(
            base,
            {"image": expert(dense, 0.0)},
            sparse_layers=[0],
            slots=("image", "image"),
            router_seed=0,
        )


def test_no_sparse_layer_leaves_the_base_as_it_is(dense):
    base = dense.state_dict()
    plan = plan_assembly(base, {}, sparse_layers=[], slots=("base",) * 2, router_seed=0)
    state = assemble(plan, base, {})
    assert state.keys() == base.keys()
    assert plan.receipt()["origins"] == []


def test_the_seed_and_nothing_else_starts_the_routers(dense):
    base, states = dense.state_dict(), []
    for seed, other in ((3, 0), (3, 1), (4, 0)):
        torch.manual_seed(other)
        plan = plan_assembly(base, {}, sparse_layers=[0, 1], slots=("base",) * 3, router_seed=seed)
        state = assemble(plan, base, {})
        names = [f"language_model.model.layers.{i}.mlp.router.weight" for i in (0, 1)]
        states.append([state[name] for name in names])
    assert all(torch.equal(a, b) for a, b in zip(states[0], states[1], strict=True))
    assert all(not torch.equal(a, c) for a, c in zip(states[0], states[2], strict=True))
    assert not torch.equal(*states[0])


def test_routers_start_from_a_normal_of_two_hundredths(dense):
    base = dense.state_dict()
    plan = plan_assembly(base, {}, sparse_layers=[0], slots=("base",) * 200, router_seed=0)
    start = assemble(plan, base, {})["language_model.model.layers.0.mlp.router.weight"]
    assert start.shape == (200, 32)
    assert start.std().item() == pytest.approx(0.02, rel=0.05)
    assert plan.receipt()["router"] == {"start": "normal", "std": 0.02, "seed": 0}


def test_a_packed_expert_computes_what_its_donor_computed(config, dense):
    donor = expert(dense, 0.1)
    _, model = sparse(config, dense, {"image": donor}, ("base", "base", "image", "base"))
    packed = model.language_model.model.layers[0].mlp.experts
    x = torch.randn(5, 32)
    only_third = Routing(torch.full((5, 1), 2), torch.ones(5, 1), torch.zeros(5, 4))
    found = packed(x, only_third)
    prefix = "language_model.model.layers.0.mlp"
    gate, up, down = (donor[f"{prefix}.{part}_proj.weight"] for part in ("gate", "up", "down"))
    by_hand = (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T
    torch.testing.assert_close(found, by_hand)


def test_the_order_of_the_receipt_does_not_move_an_expert(dense):
    base, experts = dense.state_dict(), {"image": expert(dense, 0.1), "audio": expert(dense, 0.2)}
    plan = plan_assembly(base, experts, sparse_layers=[0], slots=SLOTS, router_seed=0)
    turned = assemble(replace(plan, origins=plan.origins[::-1]), base, experts)
    for name, tensor in assemble(plan, base, experts).items():
        assert torch.equal(tensor, turned[name]), name
