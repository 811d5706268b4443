import pytest
import torch
from transformers import WhisperConfig, WhisperModel

from uni_moe.artifacts import Layout, read_card
from uni_moe.config import load_params
from uni_moe.errors import ConfigError, LineageError
from uni_moe.runs import start_run
from uni_moe.stage import StageContext
from uni_moe.train.foundation import foundation_folder, train_foundation
from uni_moe.train.networks import load_tower
from uni_moe.workspace import PACKAGE

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
    assert foundation_folder(artifact) == folder
    assert not list(artifact.glob("*.safetensors"))
    assert read_card(artifact).results["pretrained"] is True


def test_a_pretrained_folder_that_changed_is_refused(pretrained, tmp_path):
    folder, _ = pretrained
    artifact = adopt(tmp_path / "space", folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(LineageError, match=r"model\.safetensors"):
        foundation_folder(artifact)


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
