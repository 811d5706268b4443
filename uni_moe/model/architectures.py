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
    "vicuna-7b-v1.5": lambda: LlamaConfig(
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
    "BEATs_iter3_plus_AS2M": BeatsConfig,
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
    mixture: str  # how the language model is sparse, for a person

    def to_json(self) -> dict[str, int | str]:
        """Return the counts as a JSON object."""
        total = self.language + self.encoders + self.connectors
        return {**vars(self), "total": total}

    def text(self) -> str:
        """Return the counts for a person."""
        told = self.to_json()
        rows = {
            "language model": f"{_amount(self.language)}  {self.mixture}",
            "for one token": _amount(self.activated),
            "encoders": f"{_amount(self.encoders)}  frozen",
            "connectors": _amount(self.connectors),
            "all": _amount(int(told["total"])),
        }
        return "\n".join(f"{name:15}{row}".rstrip() for name, row in rows.items())


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
        mixture=_mixture(config),
    )


def _mixture(config: UniMoeConfig) -> str:
    sparse, layers = len(config.sparse_layers), config.text_config.num_hidden_layers
    if not sparse:
        return "dense"
    visited = f"{config.experts_per_token} of {config.num_experts} experts"
    return f"{visited} for each token in {sparse} of {layers} layers"


def _amount(count: int) -> str:
    size, unit = next(
        (size, unit)
        for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K"), (1, " "))
        if count >= size or size == 1
    )
    return f"{count / size:7.1f} {unit}"
