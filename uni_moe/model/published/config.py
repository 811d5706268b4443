"""The published config.json in our words.

Source: the fields of the published variants beyond LLaMA's. Where a value can be read off the
weights (which layers are sparse, how many experts, the aligner's depth), the weights are believed:
released configurations differ from variant to variant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig, WhisperConfig

from uni_moe.errors import ConfigError, bullets
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.encoders.beats import BeatsConfig
from uni_moe.model.published.names import Style, hearing_of, place

Shape = tuple[int, ...]
_FIXED = {  # field -> what alone is published and built here
    "mm_vision_select_feature": ("patch",),
    "mm_projector_type": ("mlp2x_gelu",),
    "audio_projector_type": ("linear",),
    "mm_audio_select_layer": (0,),
    "mm_use_im_start_end": (False,),
    "mm_use_im_patch_token": (False,),
}
_LLAMA = tuple(LlamaConfig().to_dict())
_OWN = ("model_type", "architectures", "transformers_version", "torch_dtype", "dtype")
_WINDOW_S = 30
_LOSSES = {
    "aux_balance_loss": "balance_coefficient",
    "aux_multimodal_loss": "target_coefficient",
    "aux_kl_loss": "divergence_coefficient",
}


def config_from_published(
    told: Mapping[str, Any],
    shapes: Mapping[str, Shape],
    *,
    vision: CLIPVisionConfig | None = None,
    speech: WhisperConfig | None = None,
    audio: BeatsConfig | None = None,
) -> UniMoeConfig:
    """Return the configuration of a published checkpoint.

    Args:
        told: the published config.json.
        shapes: published name -> shape, of all its tensors.
        vision: the configuration of its CLIP tower.
        speech: of its Whisper, where it hears speech.
        audio: of its BEATs, where it hears environmental audio.

    Raises:
        ConfigError: the checkpoint asks for something that was never published, or a tower's
            configuration is missing.
    """
    hearing = hearing_of(shapes)
    problems = [
        f"{field}: {told[field]!r} is not built here, only {', '.join(map(repr, choices))}"
        for field, choices in _FIXED.items()
        if field in told and told[field] not in (*choices, None)
    ]
    if "model.mm_projector.0.weight" in shapes and vision is None:
        problems.append("the vision tower's configuration is not given")
    if hearing and (speech if hearing == "speech" else audio) is None:
        problems.append(f"the {hearing} tower's configuration is not given")
    if problems:
        raise ConfigError(
            f"This published checkpoint cannot be read:{bullets(problems)}",
            cause="its config.json asks for what no published variant does, or a tower is missing.",
            remedy="give the towers' folders, or tell us where such a checkpoint is published.",
        )
    sparse, experts = _mixture(shapes)
    return UniMoeConfig(
        LlamaConfig(
            **{key: value for key, value in told.items() if key in _LLAMA and key not in _OWN}
        ),
        vision,
        speech if hearing == "speech" else None,
        audio if hearing == "audio" else None,
        sparse_layers=sparse,
        num_experts=experts or int(told.get("num_experts", 1)),
        experts_per_token=min(int(told.get("num_experts_per_tok", 2)), experts or 1),
        modality_adapters=any(".deepspeed_moe.fm_" in name for name in shapes),
        **_losses(told),
        vision_select_layer=int(told.get("mm_vision_select_layer", -2)),
        speech_connector=_speech_connector(shapes, speech) if hearing == "speech" else None,
        audio_connector=_audio_connector(shapes, audio) if hearing == "audio" else None,
    )


def _losses(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the losses of the 8-expert variant that are switched on, with its coefficients."""
    found: dict[str, Any] = {
        ours: float(told.get(f"{published}_coef") or 0.0) if told.get(published) else 0.0
        for published, ours in _LOSSES.items()
    }
    found["expert_targets"] = {
        kind: list(told[f"{kind}_expert_indices"])
        for kind in ("image", "audio", "video")
        if told.get(f"{kind}_expert_indices")
    }
    return found


def config_to_published(config: UniMoeConfig, style: Style) -> dict[str, Any]:
    """Return the published config.json of a model of ours, the towers by relative paths."""
    text = json.loads(config.text_config.to_json_string(use_diff=False))
    told: dict[str, Any] = {key: text[key] for key in _LLAMA if key in text and key not in _OWN}
    told["model_type"] = "llava_llama" if style == "deepspeed" else "llava"
    told |= {
        "moe": True if config.sparse_layers else None,
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
    }
    if style == "deepspeed":
        told |= {"lora_r": None, "lora_alpha": None, "ep_size": 1}  # nothing is left to merge
        told |= _stride(config)
        told["use_fm_block"] = config.modality_adapters
    if config.vision_config is not None:
        told |= {
            "mm_vision_tower": "vision_tower",
            "mm_vision_select_layer": config.vision_select_layer,
            "mm_vision_select_feature": "patch",
            "mm_projector_type": "mlp2x_gelu",
            "mm_hidden_size": config.vision_config.hidden_size,
        }
    connector = config.speech_connector or config.audio_connector
    if connector is not None:
        heard = config.speech_config
        told |= {
            "mm_audio_tower": "audio_tower" if heard is not None else "audio_tower.pt",
            "mm_audio_select_layer": 0,
            "audio_projector_type": "linear",
            "mm_audio_hidden_size": connector["width"],
            "mm_query_tokens": True,
            "query_tokens_size": connector["query_tokens"],
        }
    return told


def _stride(config: UniMoeConfig) -> dict[str, Any]:
    """Return how the 8-expert variant says which layers are sparse."""
    layers, count = config.sparse_layers, config.text_config.num_hidden_layers
    if layers == list(range(count)):
        return {"moe_type": "dense", "moe_stride": 1}
    stride = layers[1] - layers[0] if len(layers) > 1 else count
    if layers == list(range(0, count, stride)):
        return {"moe_type": "sparse", "moe_stride": stride}
    raise ConfigError(
        f"The 8-expert layout cannot say that layers {layers} are sparse.",
        cause="it knows all layers, or every n-th from the first.",
        remedy="export in the style of the 4-expert variants.",
    )


def _mixture(shapes: Mapping[str, Shape]) -> tuple[list[int], int]:
    """Return the sparse layers and the number of experts that the weights show."""
    layers: set[int] = set()
    experts = 0
    for name in shapes:
        to = place(name, None)
        if to is not None and to.slot is not None:
            found = re.search(r"\.layers\.(\d+)\.", to.target)
            assert found is not None
            layers.add(int(found[1]))
            experts = max(experts, to.slot + 1)
    return sorted(layers), experts


def _speech_connector(shapes: Mapping[str, Shape], speech: WhisperConfig | None) -> dict[str, int]:
    assert speech is not None
    prefix = "model.mm_audio_aligner.decoder.audio_decoder."
    _, queries, width = shapes["model.query_tokens"]
    return {
        "query_tokens": queries,
        "layers": _depth(shapes, prefix + "layers."),
        "width": width,
        "heads": speech.decoder_attention_heads,
        "intermediate_size": shapes[prefix + "layers.0.fc1.weight"][0],
        "positions": shapes[prefix + "embed_positions.weight"][0],
        "window_s": _WINDOW_S,
    }


def _audio_connector(shapes: Mapping[str, Shape], audio: BeatsConfig | None) -> dict[str, int]:
    assert audio is not None
    prefix = "model.mm_audio_aligner.qformer.qformer.encoder.layer."
    _, queries, width = shapes["model.mm_audio_aligner.query_tokens"]
    return {
        "query_tokens": queries,
        "layers": _depth(shapes, prefix),
        "width": width,
        "heads": audio.encoder_attention_heads,  # both have 12; no published field names it
        "intermediate_size": shapes[prefix + "0.intermediate_query.dense.weight"][0],
        "window_s": _WINDOW_S,
    }


def _depth(shapes: Mapping[str, Shape], prefix: str) -> int:
    found = {
        name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)
    }
    return len(found)
