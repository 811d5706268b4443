import json

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear, ParamWrapper
from safetensors.torch import save_file

from uni_moe.errors import ConfigError, LineageError
from uni_moe.model import adapters
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.parts import learn

PARTS = ("lora.attention", "lora.experts", "router", "connector.image")


def trained(model, batch, parts=PARTS, seed=1):
    wrapped = adapters.attach(model, parts, layers=[0], rank=4, alpha=8, dropout=0.0, seed=seed)
    learn(wrapped, parts)
    optimizer = torch.optim.SGD([p for p in wrapped.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        wrapped(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return wrapped.eval()


def test_merged_equals_unmerged(model, batch):
    wrapped = trained(model, batch)
    before = wrapped(**batch, full_logits=True).logits
    after = adapters.merge(wrapped)(**batch, full_logits=True).logits
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_merging_leaves_the_networks_own_names(model, batch):
    names = set(model.state_dict())
    assert set(adapters.merge(trained(model, batch)).state_dict()) == names


def test_the_same_seed_starts_the_same_adapters(config, batch):
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        model = UniMoeForConditionalGeneration(config)
        torch.rand(3)
        states.append(adapters.adapter_state(trained(model, batch)))
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_stock_peft_loads_what_is_saved(model, batch, tmp_path):
    model.save_pretrained(tmp_path / "base")
    wrapped = trained(model, batch, parts=("lora.attention", "lora.experts"))
    expected = wrapped(**batch, full_logits=True).logits
    (tmp_path / "adapter").mkdir()
    save_file(adapters.adapter_state(wrapped), tmp_path / "adapter/adapter_model.safetensors")
    config = adapters.adapter_config(wrapped)
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))
    base = UniMoeForConditionalGeneration.from_pretrained(tmp_path / "base").eval()
    stock = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(stock(**batch, full_logits=True).logits, expected)


def test_expert_factors_have_the_gradients_of_stock_peft(model, batch):
    """Stock peft forms the whole stack's gradient; ours never does, and both agree."""
    grads = []
    for stock in (True, False):
        wrapped = adapters.attach(
            model, ["lora.experts"], layers=[0], rank=4, alpha=8, dropout=0.0, seed=3
        )
        for module in wrapped.modules():
            if stock and isinstance(module, adapters.FactoredWrapper):
                module.__class__ = ParamWrapper
        learn(wrapped, ["lora.experts"])
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
        wrapped(**batch).loss.backward()
        grads.append({n: p.grad for n, p in wrapped.named_parameters() if p.grad is not None})
        wrapped.unload()
    assert len(grads[0]) == 4
    for name, grad in grads[0].items():
        assert grad.abs().sum() > 0
        torch.testing.assert_close(grads[1][name], grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_an_adapter_of_a_linear_map_computes_what_stock_pefts_does(model, dropout):
    wrapped = adapters.attach(
        model, ["lora.attention"], layers=(), rank=3, alpha=7, dropout=dropout, seed=0
    )
    one = next(m for m in wrapped.modules() if isinstance(m, adapters.AddedLinear)).train()
    torch.nn.init.normal_(one.lora_B["default"].weight)

    def computed(forward):
        x_BTD = torch.randn(2, 5, one.in_features, generator=torch.Generator().manual_seed(1))
        torch.manual_seed(2)
        y_BTD = forward(one, x_BTD.requires_grad_())
        learned = [x_BTD, one.lora_A["default"].weight, one.lora_B["default"].weight]
        return [y_BTD, *torch.autograd.grad(y_BTD.square().sum(), learned)]

    torch.testing.assert_close(
        computed(type(one).forward), computed(Linear.forward), atol=1e-5, rtol=1e-5
    )


def test_no_product_of_factors_lies_in_memory(model, batch, monkeypatch):
    wrapped = trained(model, batch, parts=("lora.experts",))
    monkeypatch.setattr(torch, "baddbmm", None)
    monkeypatch.setattr(torch.nn.utils.parametrize, "register_parametrization", None)
    wrapped(**batch).loss.backward()


def test_dropout_on_packed_experts_is_refused(model):
    with pytest.raises(ConfigError, match=r"lora.dropout is 0.1"):
        adapters.attach(model, ["lora.experts"], layers=[0], rank=4, alpha=8, dropout=0.1, seed=0)


def test_only_the_named_parts_learn(model):
    names = learn(model, ["connector.audio", "router"])
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == set(names)
    assert all("audio_connector" in name or "mlp.router" in name for name in names)


@pytest.mark.parametrize(
    ("part", "said"),
    [("conector", "No part of the model is called conector"), ("lora.experts", "has no lora")],
)
def test_a_part_that_is_not_there_is_an_error(model, part, said):
    with pytest.raises(ConfigError, match=said):
        learn(model, [part])


def test_feed_forward_adapters_touch_their_layers_alone(config, batch):
    plain = UniMoeConfig.from_dict({**config.to_dict(), "sparse_layers": []})
    wrapped = trained(UniMoeForConditionalGeneration(plain), batch, parts=("lora.feed_forward",))
    names = adapters.adapter_state(wrapped)
    assert len(names) == 3 * 2
    assert all(".layers.0.mlp." in name for name in names)
    before = wrapped(**batch).loss
    torch.testing.assert_close(adapters.merge(wrapped)(**batch).loss, before)


def test_merging_by_hand_gives_the_same_weights(model, batch):
    wrapped = trained(model, batch, parts=("lora.attention",))
    state = adapters.adapter_state(wrapped)
    name = "language_model.model.layers.1.self_attn.q_proj"
    a = state[f"base_model.model.{name}.lora_A.weight"]
    b = state[f"base_model.model.{name}.lora_B.weight"]
    base = dict(wrapped.named_parameters())[f"base_model.model.{name}.base_layer.weight"]
    by_hand = base.detach() + 8 / 4 * b @ a
    merged = adapters.merge(wrapped).get_submodule(name).weight
    torch.testing.assert_close(merged.detach(), by_hand)


@pytest.mark.parametrize(("rank", "alpha"), [(4, 6), (2, 1)])
def test_each_expert_gains_its_own_scaled_product_and_no_other(model, rank, alpha):
    wrapped = adapters.attach(
        model, ["lora.experts"], layers=[0], rank=rank, alpha=alpha, dropout=0.0, seed=0
    )
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    state = adapters.adapter_state(wrapped)
    experts = wrapped.get_base_model().language_model.model.layers[0].mlp
    old = {n.rpartition(".")[2]: p.detach().clone() for n, p in experts.named_parameters()}
    merged = adapters.merge(wrapped).language_model.model.layers[0].mlp.experts
    pairs = sorted(name.partition("lora_")[0] for name in state if "lora_A" in name)
    assert len(pairs) == 2
    for start in pairs:
        a, b = (state[f"{start}lora_{letter}.weight"] for letter in "AB")
        packed = next(p for p in old if p.endswith("_proj") and old[p].shape[2] == a.shape[1])
        new = getattr(merged, packed).detach()
        for expert in range(4):
            own_a = a[expert * rank : (expert + 1) * rank]
            own_b = b[:, expert::4]
            by_hand = old[packed][expert] + alpha / rank * own_b @ own_a
            torch.testing.assert_close(new[expert], by_hand)


def test_adapters_start_from_their_seed_and_change_nothing_yet(config, batch):
    starts = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        model = UniMoeForConditionalGeneration(config).eval()
        before = model(**batch).loss
        wrapped = adapters.attach(model, PARTS, layers=[0], rank=4, alpha=8, dropout=0.0, seed=seed)
        torch.testing.assert_close(wrapped(**batch).loss, before)
        state = adapters.adapter_state(wrapped)
        starts.append(torch.cat([t.flatten() for n, t in sorted(state.items()) if "lora_A" in n]))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_an_adapter_that_merging_passes_over_is_told(model):
    wrapped = adapters.attach(
        model, ["lora.attention"], layers=[0], rank=2, alpha=2, dropout=0.0, seed=0
    )
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.fill_(0.0 if "lora_A" in name else 1.0)
    with pytest.raises(LineageError, match="8 adapters had learned, but merging changed 0"):
        adapters.merge(wrapped)


def test_an_adapters_configuration_names_no_folder(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = UniMoeForConditionalGeneration.from_pretrained(tmp_path)
    wrapped = adapters.attach(
        again, ["lora.attention"], layers=[0], rank=2, alpha=3, dropout=0.0, seed=0
    )
    config = adapters.adapter_config(wrapped)
    assert config["base_model_name_or_path"] is None
    assert (config["r"], config["lora_alpha"], config["bias"]) == (2, 3, "none")
    assert str(tmp_path) not in json.dumps(config)


def test_each_experts_delta_must_arrive(model, batch, monkeypatch):
    wrapped = trained(model, batch, ["lora.experts"])
    stock = ParamWrapper.get_delta_weight

    def loses_one(self, name):
        delta = stock(self, name)
        delta[1] = 0.0
        return delta

    monkeypatch.setattr(ParamWrapper, "get_delta_weight", loses_one)
    count = model.config.num_experts
    said = f"{2 * count} adapters had learned, but merging changed {2 * (count - 1)} weights"
    with pytest.raises(LineageError, match=said):
        adapters.merge(wrapped)
