"""A tiny dense model in a folder, a mixture with its adapter, others in the published layout."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from tests.unit.checkpoints.published import model_that_hears
from uni_moe.checkpoints.published_export import export_published
from uni_moe.cli import main
from uni_moe.model import adapters
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.merging import BASE_NOTE
from uni_moe.model.network import UniMoeForConditionalGeneration


@pytest.fixture
def dense(tmp_path):
    torch.manual_seed(0)
    config = UniMoeConfig(
        LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    )
    model = UniMoeForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path / "dense")
    return tmp_path / "dense", model


def load(folder):
    return UniMoeForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture
def published(tmp_path):
    """Return a folder in the published layout and the model that it was made of."""

    def make(what="speech", style="experts", **changed):
        model = model_that_hears(what, **changed)
        model.save_pretrained(tmp_path / "ours")
        export_published(tmp_path / "ours", tmp_path / "published", style=style)
        return tmp_path / "published", model

    return make


@pytest.fixture
def command(capsys):
    """Run a command; return its exit code, and what it said on both ways."""

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def mixture(dense, tmp_path, command):
    """A folder whose two experts differ, and its dense ancestor."""
    folder, _ = dense
    expert = {n: t + 0.5 for n, t in load_file(folder / "model.safetensors").items() if "mlp" in n}
    save_file(expert, tmp_path / "sound.safetensors")
    out = tmp_path / "mixture"
    words = ["--upcycle", f"base,{tmp_path / 'sound.safetensors'}", "--out", out]
    assert command("surgery", folder, *words)[0] == 0
    return out, folder


@pytest.fixture
def adapted(mixture, tmp_path):
    """An adapter that has learned, in a folder beside the model it was trained on."""
    folder, _ = mixture
    model = load(folder)
    parts = ["lora.attention", "lora.experts"]
    wrapped = adapters.attach(model, parts, layers=[0, 2], rank=2, alpha=6, dropout=0.0, seed=0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    out = tmp_path / "adapter"
    out.mkdir()
    save_file(adapters.adapter_state(wrapped), out / "adapter_model.safetensors")
    (out / "adapter_config.json").write_text(json.dumps(adapters.adapter_config(wrapped)))
    (out / BASE_NOTE).write_text(json.dumps(adapters.base_note(wrapped)))
    return folder, out, wrapped
