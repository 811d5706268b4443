"""What users of transformers expect of a network: auto classes, folders, devices, precisions."""

import json
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
)

from uni_moe.model.network import UniMoeForConditionalGeneration

AUTO = (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM)

FRESH = """
import sys, torch
import uni_moe.model.auto
from transformers import AutoConfig, AutoModel, AutoProcessor
torch.set_num_threads(1)
folder = sys.argv[1]
batch = torch.load(folder + "/batch.pt", weights_only=True)
model = AutoModel.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
assert type(processor).__name__ == "UniMoeProcessor"
assert AutoConfig.from_pretrained(folder).model_type == "uni_moe"
with torch.no_grad():
    out = model(**batch, full_logits=True)
torch.save({"logits": out.logits, "loss": out.loss}, folder + "/again.pt")
"""


@pytest.fixture
def saved(model, processor, tmp_path):
    """A folder of many small shards."""
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    processor.save_pretrained(tmp_path)
    return tmp_path


@torch.no_grad()
def logits(model, batch):
    return model(**batch, full_logits=True).logits


@pytest.mark.parametrize("auto", AUTO)
def test_every_fitting_auto_class_loads_the_network(auto, saved, model, batch):
    again = auto.from_pretrained(saved)
    assert type(again) is UniMoeForConditionalGeneration
    assert torch.equal(logits(again, batch), logits(model, batch))
    assert type(auto.from_config(AutoConfig.from_pretrained(saved))) is type(model)


def test_a_fresh_process_computes_the_same_bits_from_shards(saved, model, batch):
    shards = sorted(path.name for path in saved.glob("model-*.safetensors"))
    index = json.loads((saved / "model.safetensors.index.json").read_text())
    assert len(shards) > 3
    assert set(index["weight_map"].values()) == set(shards)
    torch.save(dict(batch), saved / "batch.pt")
    subprocess.run([sys.executable, "-c", FRESH, str(saved)], check=True)
    again = torch.load(saved / "again.pt", weights_only=True)
    assert torch.equal(again["logits"], logits(model, batch))
    assert torch.equal(again["loss"], model(**batch).loss.detach())


PLACES = {
    "auto": "auto",
    "cpu": {"": "cpu"},
    "disk": {
        "vision_tower": "disk",
        "speech_tower": "cpu",
        "audio_tower": "disk",
        "image_connector": "disk",
        "speech_connector": "disk",
        "audio_connector": "disk",
        "language_model.model.embed_tokens": "cpu",
        "language_model.model.layers.0": "disk",
        "language_model.model.layers.1": "cpu",
        "language_model.model.norm": "cpu",
        "language_model.model.rotary_emb": "cpu",
        "language_model.lm_head": "disk",
    },
}


@pytest.mark.parametrize("place", PLACES)
def test_a_network_spread_over_devices_computes_the_same_bits(
    place, saved, model, batch, tmp_path_factory
):
    again = AutoModel.from_pretrained(
        saved, device_map=PLACES[place], offload_folder=tmp_path_factory.mktemp("offload")
    )
    is_on_disk = any(parameter.is_meta for parameter in again.parameters())
    assert is_on_disk == (place == "disk")
    assert torch.equal(logits(again, batch), logits(model, batch))


def test_attention_is_fused_unless_another_is_asked_for(saved, model, batch):
    for asked, found in ((None, "sdpa"), ("sdpa", "sdpa"), ("eager", "eager")):
        words = {} if asked is None else {"attn_implementation": asked}
        again = AutoModel.from_pretrained(saved, **words)
        parts = (again, again.language_model, again.vision_tower, again.speech_tower)
        names = {part.config._attn_implementation for part in parts}
        assert {name.removeprefix("segmented_") for name in names} == {found}  # of packed rows too
        torch.testing.assert_close(logits(again, batch), logits(model, batch), atol=1e-5, rtol=0)


def test_half_precision_loads_everywhere_and_routes_as_its_logits_say(saved, model, batch):
    half = AutoModel.from_pretrained(saved, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        out = half(**batch, output_routing=True)
        expected = model(**batch, output_routing=True)
    for index, routing in out.routing.items():
        chosen, expert = routing.logits_TE.float().topk(2)
        assert torch.equal(routing.expert_TK, expert)
        assert routing.weight_TK.dtype == torch.float32
        torch.testing.assert_close(routing.weight_TK, chosen.softmax(-1))
        same = (routing.expert_TK == expected.routing[index].expert_TK).float().mean()
        assert same > 0.9
    torch.testing.assert_close(out.loss, expected.loss, atol=0.03, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_router_in_half_precision_chooses_the_same_experts_for_clear_choices(model, dtype):
    router = model.sparse_layers()[0].router.to(dtype)
    x_TD = torch.randn(64, 32, generator=torch.Generator().manual_seed(3)).to(dtype)
    routing = router(x_TD)
    by_hand = F.linear(x_TD.double(), router.weight.double())
    first, second, third = by_hand.sort(descending=True).values[:, :3].unbind(1)
    clear = torch.minimum(first - second, second - third) > 0.02
    assert clear.any()
    assert torch.equal(routing.expert_TK[clear], by_hand.topk(2).indices[clear])
