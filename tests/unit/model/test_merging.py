"""A saved adapter folded into states, against stock peft's own merging."""

import pytest
import torch

from tests.unit.model.test_adapters import trained
from uni_moe.errors import LineageError
from uni_moe.model import adapters
from uni_moe.model.merging import digest, merge, plan_merge
from uni_moe.model.network import UniMoeForConditionalGeneration

PARTS = ("lora.attention", "lora.experts")


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def plan_of(base, adapter):
    return plan_merge(shapes(base), shapes(adapter), rank=4, alpha=8)


@pytest.fixture
def learned(model, batch):
    """The base as it was, an adapter that has learned, and the model that peft merges."""
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrapped = trained(model, batch, parts=PARTS)
    adapter = {name: t.clone() for name, t in adapters.adapter_state(wrapped).items()}
    config, note = adapters.adapter_config(wrapped), adapters.base_note(wrapped)
    return base, adapter, config, note, adapters.merge(wrapped)


def test_states_merge_as_peft_merges(learned):
    base, adapter, _, _, peft = learned
    state, receipt = merge(plan_of(base, adapter), base, adapter, "mine")
    assert state.keys() == peft.state_dict().keys()
    for name, tensor in peft.state_dict().items():
        torch.testing.assert_close(state[name], tensor, atol=1e-6, rtol=0, msg=name)
    changed = {name for name in base if not torch.equal(base[name], state[name])}
    assert changed == {entry["target"] for entry in receipt}
    assert len(receipt) == len(adapter) // 2 == 2 * 4 + 2


def test_the_receipt_holds_the_hash_of_every_half(learned):
    base, adapter, *_ = learned
    _, receipt = merge(plan_of(base, adapter), base, adapter, "mine")
    for entry in receipt:
        assert entry["donor"] == "mine"
        assert entry["sha256"] == [digest([adapter[name]]) for name in entry["source"]]


def test_the_note_beside_an_adapter_is_the_hash_of_what_it_changes(learned):
    base, adapter, _, note, _ = learned
    targets = sorted(fold.target for fold in plan_of(base, adapter).folds)
    assert note == {"sha256": digest(base[name] for name in targets), "dtype": "torch.float32"}


def test_an_adapter_for_another_base_is_refused_with_all_that_is_wrong(learned):
    base, adapter, *_ = learned
    other = dict(base)
    attention = "language_model.model.layers.0.self_attn.q_proj.weight"
    experts = "language_model.model.layers.0.mlp.experts.down_proj"
    other[attention] = torch.zeros(16, 16)
    other[experts] = base[experts][:3]
    del other["language_model.model.layers.1.self_attn.v_proj.weight"]
    broken = dict(adapter)
    half = next(name for name in adapter if "layers.1.self_attn.o_proj.lora_A" in name)
    del broken[half]
    broken["base_model.model.lm_head.weight"] = torch.zeros(1)
    with pytest.raises(LineageError) as error:
        plan_of(other, broken)
    for said in (
        "layers.0.self_attn.q_proj: B (32, 4) A (4, 32) of rank 4 on",
        "(16, 16)",
        "(3, 32, 64)",
        "v_proj: B (32, 4) A (4, 32) of rank 4 on nothing of that name",
        "o_proj.lora_B.weight stands without its other half",
        "lm_head.weight is no half of a low-rank adapter",
    ):
        assert said in str(error.value)


def test_a_configuration_with_another_rank_is_refused(learned):
    base, adapter, *_ = learned
    with pytest.raises(LineageError, match="of rank 8"):
        plan_merge(shapes(base), shapes(adapter), rank=8, alpha=8)
    with pytest.raises(LineageError, match="it holds nothing"):
        plan_merge(shapes(base), {}, rank=8, alpha=8)


def test_a_delta_that_rounding_swallows_is_told(learned):
    base, adapter, *_ = learned
    tiny = {name: t * 1e-9 if "layers.1." in name else t for name, t in adapter.items()}
    with pytest.raises(LineageError, match="4 of 16 trained adapters would change nothing"):
        merge(plan_of(base, tiny), base, tiny, "mine")
    unlearned = {n: torch.zeros_like(t) if "lora_B" in n else t for n, t in adapter.items()}
    state, _ = merge(plan_of(base, unlearned), base, unlearned, "mine")
    assert all(torch.equal(tensor, base[name]) for name, tensor in state.items())


def test_the_delta_of_one_expert_that_rounding_swallows_is_told(learned):
    base, adapter, *_ = learned
    up = next(name for name in adapter if "mlp.experts" in name and name.endswith("lora_B.weight"))
    tiny = {name: tensor.clone() for name, tensor in adapter.items()}
    tiny[up][:, 2::4] *= 1e-20  # beside each other, the expert counting fastest
    with pytest.raises(LineageError, match="1 of 16 trained adapters would change nothing") as told:
        merge(plan_of(base, tiny), base, tiny, "mine")
    assert "_proj[2]: delta of norm" in str(told.value)
    tiny[up][:, 2::4] = 0.0  # an expert that nothing taught has nothing to lose
    merge(plan_of(base, tiny), base, tiny, "mine")


def loaded(config, weights, told, adapter, **words):
    network = UniMoeForConditionalGeneration(config).eval()
    network.load_state_dict(weights)
    return adapters.load(network, told, adapter, **words).eval()


def test_a_loaded_adapter_computes_what_its_merged_weights_compute(learned, config, batch):
    base, adapter, told, note, peft = learned
    wrapped = loaded(config, base, told, adapter, base=note)
    assert any(isinstance(m, adapters.FactoredWrapper) for m in wrapped.modules())
    with torch.no_grad():
        one, two = (m(**batch, full_logits=True).logits for m in (wrapped, peft))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)
    assert not any(p.requires_grad for p in wrapped.parameters())
    assert any(
        p.requires_grad
        for p in loaded(config, base, told, adapter, base=note, learn=True).parameters()
    )


def test_what_is_saved_again_is_what_was_loaded(learned, config):
    base, adapter, told, note, _ = learned
    wrapped = loaded(config, base, told, adapter, base=note)
    again = adapters.adapter_state(wrapped)
    assert again.keys() == adapter.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in adapter.items())


def test_an_adapter_that_does_not_fit_leaves_the_network_as_it_is(learned, config):
    base, adapter, told, note, _ = learned
    network = UniMoeForConditionalGeneration(config)
    names = set(network.state_dict())
    wrong = {name: t[:, :2] for name, t in adapter.items()}
    with pytest.raises(LineageError, match="does not fit"):
        adapters.load(network, told, wrong, base=note)
    with pytest.raises(LineageError, match="was trained on another base"):
        adapters.load(network, told, adapter, base=note)
    assert set(network.state_dict()) == names
    with pytest.raises(LineageError, match="10 adapters are saved, but their configuration makes"):
        loaded(config, base, {**told, "target_parameters": None}, adapter, base=note)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: None, "there is no base.json"),
        (lambda n: n | {"dtype": "torch.bfloat16"}, "were"),
    ],
)
def test_a_base_that_nobody_can_know_is_told(change, said, learned, config):
    base, adapter, told, note, _ = learned
    with pytest.warns(UserWarning, match=f"nobody can know .*{said}"):
        loaded(config, base, told, adapter, base=change(note))
