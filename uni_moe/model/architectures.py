"""The published parts by name and size, so that a model can be planned before it is fetched.

Source: the configurations of the checkpoints that the published variants are built on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from transformers import CLIPVisionConfig, LlamaConfig, PreTrainedConfig, WhisperConfig

from uni_moe.model.config import UniMoeConfig
from uni_moe.model.encoders.beats import BeatsConfig
from uni_moe.model.network import UniMoeForConditionalGeneration

ARCHITECTURES: Mapping[str, Callable[[], PreTrainedConfig]] = {
    "llama-7b": lambda: LlamaConfig(
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    ),
    "clip-vit-large-patch14-336": lambda: CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    ),
    "whisper-small": lambda: WhisperConfig(
        vocab_size=51_865,
        num_mel_bins=80,
        d_model=768,
        encoder_layers=12,
        encoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_layers=12,
        decoder_attention_heads=12,
        decoder_ffn_dim=3072,
        max_source_positions=1500,
        max_target_positions=448,
    ),
    "beats-iter3-plus": BeatsConfig,
}


@dataclass(frozen=True)
class Size:
    """How many parameters a network has.

    `language` counts the language model with all experts, `activated` what one token passes
    through, `encoders` the frozen towers, `connectors` what stands between.
    """

    language: int
    activated: int
    encoders: int
    connectors: int

    def to_json(self) -> dict[str, int]:
        """Return the counts as a JSON object."""
        return dict(vars(self))


def size_of(config: UniMoeConfig) -> Size:
    """Count a network's parameters without their memory."""
    with torch.device("meta"):
        model = UniMoeForConditionalGeneration(config)

    def count(*parts: str) -> int:
        return sum(
            p.numel() for name, p in model.named_parameters() if name.partition(".")[0] in parts
        )

    language = count("language_model")
    idle = config.num_experts - config.experts_per_token
    resting = sum(
        p.numel() // config.num_experts * idle
        for layer in model.sparse_layers().values()
        for p in layer.experts.parameters()
    )
    return Size(
        language=language,
        activated=language - resting,
        encoders=count("vision_tower", "audio_tower", "speech_tower"),
        connectors=count("image_connector", "audio_connector", "speech_connector"),
    )
