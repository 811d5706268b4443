import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from uni_moe.artifacts import Layout, read_card
from uni_moe.config import load_params
from uni_moe.errors import ConfigError, LineageError
from uni_moe.records import canonical_json, sha256_text
from uni_moe.runs import start_run
from uni_moe.stage import StageContext
from uni_moe.train.foundation import train_foundation
from uni_moe.train.pretrained import foundation_folder, load_tower
from uni_moe.workspace import PACKAGE

TINY_CLIP = CLIPVisionConfig(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=16,
    patch_size=8,
)
RECIPE = (PACKAGE / "recipes/playground.yaml").read_text()


@pytest.fixture
def pretrained(tmp_path):
    """A whole Whisper in Hugging Face layout, as a person would download it."""
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        vocab_size=60,
        max_source_positions=50,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    model = WhisperModel(config)
    model.save_pretrained(tmp_path / "whisper")
    WhisperFeatureExtractor().save_pretrained(tmp_path / "whisper")
    return tmp_path / "whisper", model


def adopt(workspace, folder):
    start = RECIPE.index("  speech:\n    pretrained: null")
    end = RECIPE.index("  language:\n    pretrained")
    text = RECIPE[:start] + f"  speech: {{pretrained: {folder}, tiny: null}}\n" + RECIPE[end:]
    workspace.mkdir(exist_ok=True)
    (workspace / "params.yaml").write_text(text)
    layout = Layout(workspace)
    params = load_params(layout.params)
    with start_run(layout, "foundation@speech", {}) as run:
        train_foundation(StageContext("foundation@speech", layout, params, run))
    return layout.foundation("speech")


def test_a_pretrained_folder_is_recorded_by_hash_and_not_copied(pretrained, tmp_path):
    folder, _ = pretrained
    artifact = adopt(tmp_path / "space", folder)
    assert foundation_folder(Layout(tmp_path / "space"), "speech") == folder
    assert json.loads((artifact / "pretrained.json").read_text())["path"] == str(folder)
    assert not list(artifact.glob("*.safetensors"))
    assert read_card(artifact).results["pretrained"] is True
    (record,) = (tmp_path / "space" / "runs").glob("*/run.json")
    (read,) = json.loads(record.read_text())["read"]
    files = json.loads((artifact / "pretrained.json").read_text())["files"]
    version = sha256_text(canonical_json(files))
    assert read == {"namespace": "file", "name": str(folder.resolve()), "version": version}


@pytest.mark.parametrize("change", ["bytes", "gone", "more"])
def test_a_pretrained_folder_that_changed_is_refused(pretrained, tmp_path, change):
    folder, _ = pretrained
    adopt(tmp_path / "space", folder)
    weights = folder / "model.safetensors"
    if change == "bytes":
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    elif change == "gone":
        weights.unlink()
    else:
        (folder / "added_tokens.json").write_text("{}")
    with pytest.raises(LineageError, match="has changed") as error:
        foundation_folder(Layout(tmp_path / "space"), "speech")
    assert "--force --single-item foundation@speech" in error.value.remedy


def test_a_folder_is_named_as_params_name_it(pretrained, tmp_path):
    folder, _ = pretrained
    artifact = adopt(tmp_path / "space", f"../{folder.name}")
    assert json.loads((artifact / "pretrained.json").read_text())["path"] == "../whisper"
    assert foundation_folder(Layout(tmp_path / "space"), "speech") == folder


def test_all_that_is_wrong_with_a_folder_is_told_at_once(tmp_path):
    folder = tmp_path / "clip"
    CLIPVisionModel(TINY_CLIP).save_pretrained(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError) as error:
        adopt(tmp_path / "space", folder)
    said = str(error.value)
    assert "type 'clip_vision_model', not whisper" in said
    assert "no model.safetensors" in said
    assert "no preprocessor_config.json" in said
    assert not (tmp_path / "space/artifacts/foundation/speech").exists()


def test_a_missing_shard_is_named(pretrained, tmp_path):
    folder, _ = pretrained
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="model-00001-of-00002"):
        adopt(tmp_path / "space", folder)


def test_weights_that_are_not_there_are_never_drawn_at_random(pretrained):
    folder, _ = pretrained
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layers.0.fc1.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"layers\.0\.fc1\.weight"):
        load_tower("speech", folder)


def test_weights_of_another_size_are_refused(tmp_path):
    folder = tmp_path / "clip"
    CLIPVisionModel(TINY_CLIP).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(ConfigError, match="does not hold the weights of a CLIPVisionModel"):
        load_tower("image", folder)


def test_a_missing_pretrained_folder_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="is no model folder") as error:
        adopt(tmp_path / "space", tmp_path / "nowhere")
    assert "params.yaml" in error.value.remedy
    assert not (tmp_path / "space/artifacts/foundation/speech").exists()


def test_the_encoder_is_taken_out_of_a_whole_whisper(pretrained):
    folder, whole = pretrained
    tower = load_tower("speech", folder)
    for name, tensor in whole.encoder.state_dict().items():
        assert torch.equal(tower.state_dict()[name], tensor)
