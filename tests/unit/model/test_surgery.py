"""Operations on experts: what they plan, what they do to outputs, and how they are undone."""

import pytest
import torch

from uni_moe.errors import LineageError
from uni_moe.model import surgery
from uni_moe.model.difference import compare
from uni_moe.model.network import UniMoeForConditionalGeneration


def after(model, plan, donors=None):
    state, receipt = surgery.operate(plan, model.state_dict(), donors or {}, [0])
    config = model.config
    before, config.num_experts = config.num_experts, len(plan.slots)
    new = UniMoeForConditionalGeneration(config).eval()
    config.num_experts = before
    new.load_state_dict(state)
    return new, receipt


def loss(model, batch):
    with torch.no_grad():
        return float(model(**batch).loss)


def kinds(model, other):
    return [
        one.kind
        for one in compare(model.state_dict(), other.state_dict(), [0], [0])
        if one.layer == 0
    ]


def test_a_permutation_changes_no_output_and_is_undone(model, batch):
    plan = surgery.permute(4, [2, 0, 3, 1])
    new, _ = after(model, plan)
    assert loss(new, batch) == pytest.approx(loss(model, batch), rel=1e-6)
    back, _ = after(new, plan.inverse())
    assert all(torch.equal(t, back.state_dict()[n]) for n, t in model.state_dict().items())


def test_a_difference_tells_which_expert_was_which(model):
    new, _ = after(model, surgery.permute(4, [0, 3, 1, 2]))
    found = [
        one for one in compare(model.state_dict(), new.state_dict(), [0], [0]) if one.layer == 0
    ]
    assert [one.kind for one in found] == ["identical", "permuted", "permuted", "permuted"]
    assert [one.source for one in found] == [None, 3, 1, 2]
    (router,) = [
        one for one in compare(model.state_dict(), new.state_dict(), [0], [0]) if one.slot is None
    ]
    assert (router.kind, router.name.rpartition(".mlp.")[2]) == ("permuted", "router.weight")
    assert router.text().endswith("permuted: its rows follow the experts")


@pytest.mark.parametrize(
    "plan", [surgery.clone(4, 1), surgery.add(4, "other", 2, seed=5)], ids=["clone", "add"]
)
def test_what_was_added_can_be_taken_away(model, plan):
    donor = {n: t + 1 for n, t in model.state_dict().items()}
    new, receipt = after(model, plan, {"other": donor})
    assert new.config.num_experts == 5 or len(new.sparse_layers()[0].router.weight) == 5
    assert len(receipt) == 3 * 5  # gate and up, down, and the router's row
    back, _ = after(new, plan.inverse())
    assert all(torch.equal(t, back.state_dict()[n]) for n, t in model.state_dict().items())


def test_an_experts_file_can_be_a_donor(model):
    prefix = "language_model.model.layers.0.mlp."
    expert = {
        f"{prefix}{name}_proj.weight": torch.randn(shape)
        for name, shape in (("gate", (64, 32)), ("up", (64, 32)), ("down", (32, 64)))
    }
    new, receipt = after(model, surgery.replace_slot(4, 2, "mine"), {"mine": expert})
    packed = new.sparse_layers()[0].experts
    assert torch.equal(packed.gate_up_proj[2, :64], expert[f"{prefix}gate_proj.weight"])
    assert torch.equal(packed.gate_up_proj[2, 64:], expert[f"{prefix}up_proj.weight"])
    assert torch.equal(packed.down_proj[2], expert[f"{prefix}down_proj.weight"])
    old, now = (m.sparse_layers()[0].router.weight for m in (model, new))
    assert torch.equal(old, now)
    of_slot = {
        one["target"].rpartition(".")[2]: one["donor"] for one in receipt if one["slot"] == 2
    }
    assert of_slot == {"gate_up_proj": "mine", "down_proj": "mine", "weight": "self"}
    assert kinds(model, new) == ["identical", "identical", "changed", "identical"]


def test_an_operation_that_loses_an_expert_has_no_inverse():
    assert surgery.replace_slot(4, 2, "mine").inverse() is None
    assert surgery.remove(4, 2, top_k=2).inverse() is None


def test_a_removed_expert_takes_its_router_row_with_it(model):
    new, _ = after(model, surgery.remove(4, 1, top_k=2))
    old = model.sparse_layers()[0].router.weight
    assert torch.equal(new.sparse_layers()[0].router.weight, old[[0, 2, 3]])


@pytest.mark.parametrize(
    "make",
    [
        lambda: surgery.permute(4, [0, 1, 2]),
        lambda: surgery.permute(4, [0, 1, 2, 2]),
        lambda: surgery.clone(4, 4),
        lambda: surgery.remove(2, 0, top_k=2),
    ],
)
def test_what_cannot_be_done_is_refused(make):
    with pytest.raises(LineageError):
        make()


def test_a_donor_that_does_not_fit_is_refused(model):
    with pytest.raises(LineageError, match="has nothing for"):
        after(model, surgery.add(4, "nobody", seed=0))


def test_a_low_rank_change_is_told_with_its_norm(model):
    state = {n: t.clone() for n, t in model.state_dict().items()}
    name = "language_model.model.layers.0.mlp.experts.gate_up_proj"
    delta = torch.randn(64, 3) @ torch.randn(3, 32)
    state[name][1, :64] += delta
    name = "language_model.model.layers.1.self_attn.q_proj.weight"
    noise = torch.randn(32, 32)
    state[name] += noise
    found = compare(model.state_dict(), state, [0], [0])
    (expert,) = [one for one in found if one.kind == "low rank"]
    assert (expert.slot, expert.rank) == (1, 3)
    assert expert.norm == pytest.approx(float(delta.norm()), rel=1e-4)
    (other,) = [one for one in found if one.kind == "changed"]
    assert other.name == name
    assert other.norm == pytest.approx(float(noise.norm()), rel=1e-4)
    state[router := "language_model.model.layers.0.mlp.router.weight"][0] += 1.0
    changed = [
        one.name for one in compare(model.state_dict(), state, [0], [0]) if one.kind == "changed"
    ]
    assert changed == [router, name]  # no adapter ever changes a router
