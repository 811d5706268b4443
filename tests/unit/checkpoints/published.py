"""Tiny models that a published variant could be, and their folders in the published layout."""

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, LlamaConfig, WhisperConfig

from uni_moe.model.config import UniMoeConfig
from uni_moe.model.encoders.beats import BeatsConfig
from uni_moe.model.network import UniMoeForConditionalGeneration

QUERY = {"query_tokens": 4, "layers": 2, "width": 32, "heads": 4, "intermediate_size": 64}
HEARD = {
    "speech": {
        "speech_config": WhisperConfig(
            d_model=32,
            encoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            max_source_positions=1500,
        ),
        "speech_connector": {**QUERY, "positions": 64, "window_s": 30},
    },
    "audio": {
        "audio_config": BeatsConfig(
            embed_dim=16,
            encoder_layers=2,
            encoder_embed_dim=32,
            encoder_ffn_embed_dim=64,
            encoder_attention_heads=4,
            num_buckets=32,
            max_distance=80,
            conv_pos=16,
            conv_pos_groups=4,
        ),
        "audio_connector": {**QUERY, "window_s": 30},
    },
}


def model_that_hears(what, *, vocabulary=300, positions=2048, **changed):
    torch.manual_seed(3)
    config = UniMoeConfig(
        LlamaConfig(
            vocab_size=vocabulary,
            max_position_embeddings=positions,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
        ),
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=16,
            patch_size=8,
        ),
        **{**HEARD[what], "sparse_layers": [0, 2], "num_experts": 4, **changed},
    )
    model = UniMoeForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model


def shard_of(folder):
    return load_file(folder / "model.safetensors")


def into_one_shard(folder):
    """Put experts and gates of the 8-expert style into the shard, and leave their adapters out."""
    weights = shard_of(folder)
    for file in [*folder.glob("*_mlp_experts.bin"), folder / "mlp_gates.bin"]:
        rank = file.name.partition("_")[0]
        for name, tensor in torch.load(file, weights_only=True).items():
            weights[name.replace("deepspeed_experts.0.", f"deepspeed_experts.{rank}.")] = tensor
        file.unlink()
    plain = {name: tensor for name, tensor in weights.items() if "_lora_" not in name}
    save_file(plain, folder / "model.safetensors")
