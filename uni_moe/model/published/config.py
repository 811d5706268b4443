"""The published config.json in our words.

Source: the fields of the published variants beyond LLaMA's. Where a value can be read off the
weights (which layers are sparse, how many experts, the aligner's depth), the weights are believed:
released configurations differ from variant to variant. An encoder that config.json names is part
of the network even where its connector's weights are gone: then those are missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig, WhisperConfig

from uni_moe.errors import ConfigError, bullets
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.encoders.beats import BeatsConfig
from uni_moe.model.published.aligners import audio_aligner, speech_aligner
from uni_moe.model.published.names import Hearing, Style, hearing_of, place, sees

Shape = tuple[int, ...]
_FIXED = {  # field -> what alone is published and built here
    "mm_vision_select_feature": ("patch",),
    "mm_projector_type": ("mlp2x_gelu",),
    "audio_projector_type": ("linear",),
    "mm_audio_select_layer": (0,),
    "mm_use_im_start_end": (False,),
    "mm_use_im_patch_token": (False,),
}
_BEATS = {  # the same of BEATs' own configuration
    "layer_norm_first": (False,),
    "deep_norm": (True,),
    "relative_position_embedding": (True,),
    "gru_rel_pos": (True,),
    "conv_bias": (False,),
    "activation_fn": ("gelu",),
    "finetuned_model": (False,),
}
# What the published code asks its configuration for, and has one value in what ours computes.
# Of one more field, mm_audio_select_feature, no published value is known.
_TOLD = {
    "use_mm_proj": True,
    "tune_mm_mlp_adapter": False,
    "freeze_mm_mlp_adapter": False,
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "mm_projector_lr": None,
    "image_aspect_ratio": "square",
    "image_grid_pinpoints": None,
    "pretraining_tp": 1,
    "use_cache": True,
}
_TOLD_SPEECH = {"language": "English", "task": "transcribe", "local_files_only": True}
# The 8-expert variant divides by its adapters' rank, so there is one even where all are merged.
# Nothing is dropped there, whatever the capacity.
BUILT_IN = {"lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.05}
_TOLD_DEEPSPEED = {**BUILT_IN, "capacity_factor": 1.0, "use_flash_attn": False}
_LLAMA = (*LlamaConfig().to_dict(), "rope_theta", "rope_scaling")
_OWN = ("model_type", "architectures", "transformers_version", "torch_dtype", "dtype")
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
    hearing = hearing_of(shapes) or ("speech" if speech else "audio" if audio else None)
    speech = speech if hearing == "speech" else None
    audio = audio if hearing == "audio" else None
    sparse, experts = _mixture(shapes)
    problems = [*_strange(told, _FIXED), *_few_experts(told, experts)]
    if (sees(shapes) or told.get("mm_vision_tower")) and vision is None:
        problems.append("the vision tower's configuration is not given")
    if (hearing or told.get("mm_audio_tower")) and (speech or audio) is None:
        problems.append(f"the {hearing or 'audio'} tower's configuration is not given")
    if problems:
        raise ConfigError(
            f"This published checkpoint cannot be read:{bullets(problems)}",
            cause="its config.json asks for what no published variant does, or a tower is missing.",
            remedy="give the towers' folders, or tell us where such a checkpoint is published.",
        )
    return UniMoeConfig(
        LlamaConfig(
            **{key: value for key, value in told.items() if key in _LLAMA and key not in _OWN}
        ),
        vision,
        speech,
        audio,
        sparse_layers=sparse,
        **(
            {"num_experts": experts, "experts_per_token": told["num_experts_per_tok"]}
            if sparse
            else {}
        ),
        modality_adapters=any(".deepspeed_moe.fm_" in name for name in shapes),
        **_losses(told, hearing),
        vision_select_layer=int(told.get("mm_vision_select_layer", -2)),
        speech_connector=speech_aligner(told, shapes, speech) if speech else None,
        audio_connector=audio_aligner(told, shapes, audio) if audio else None,
    )


def beats_from_published(told: Mapping[str, Any]) -> BeatsConfig:
    """Return our configuration for the `cfg` of a published BEATs file.

    Raises:
        ConfigError: it is of another architecture than the published one.
    """
    problems = list(_strange(told, _BEATS))
    if problems:
        raise ConfigError(
            f"This BEATs cannot be read:{bullets(problems)}",
            cause="it is not the pretrained encoder that Uni-MoE uses.",
            remedy="fetch BEATs_iter3_plus_AS2M.pt, the one that is pretrained and not fine-tuned.",
        )
    known = BeatsConfig().to_dict().keys() - {"model_type", "architectures"}
    return BeatsConfig(**{key: told[key] for key in told.keys() & known})


def _strange(told: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]]) -> Iterator[str]:
    """Return the fields that ask for what was never published."""
    for field, choices in fixed.items():
        if field in told and told[field] not in (*choices, None):
            only = ", ".join(map(repr, choices))
            yield f"{field}: {told[field]!r} is not built here, only {only}"


def _few_experts(told: Mapping[str, Any], experts: int) -> Iterator[str]:
    """Say what is wrong with the number of experts that a token visits."""
    visited = told.get("num_experts_per_tok")
    if experts and (not isinstance(visited, int) or not 1 <= visited <= experts):
        yield f"num_experts_per_tok: {visited!r}, but the weights have {experts} experts"


def _losses(told: Mapping[str, Any], hearing: Hearing | None) -> dict[str, Any]:
    """Return the losses of the 8-expert variant that are switched on, with its coefficients.

    The published variants know one kind of sound, and call it audio.
    """
    found: dict[str, Any] = {
        ours: float(told.get(f"{published}_coef") or 0.0) if told.get(published) else 0.0
        for published, ours in _LOSSES.items()
    }
    found["expert_targets"] = {
        hearing or kind if kind == "audio" else kind: list(told[f"{kind}_expert_indices"])
        for kind in ("image", "audio", "video")
        if told.get(f"{kind}_expert_indices")
    }
    return found


def config_to_published(config: UniMoeConfig, style: Style) -> dict[str, Any]:
    """Return the published config.json of a model of ours, the towers by relative paths."""
    text = json.loads(config.text_config.to_json_string(use_diff=False))
    told: dict[str, Any] = {key: text[key] for key in _LLAMA if key in text and key not in _OWN}
    told |= _rope(told.pop("rope_parameters"))
    told |= _TOLD
    told["model_type"] = "llava_llama" if style == "deepspeed" else "llava"
    told |= {
        "moe": True if config.sparse_layers else None,
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
    }
    if style == "deepspeed":
        # Its loader takes one expert from each rank's file, so there are as many ranks.
        told |= {**_TOLD_DEEPSPEED, "ep_size": config.num_experts if config.sparse_layers else 1}
        told |= _stride(config) if config.sparse_layers else {}
        told["use_fm_block"] = config.modality_adapters
    told |= _told_losses(config)
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
            "mm_audio_attention_heads": connector["heads"],  # ours: no published field says it
        }
        told |= _TOLD_SPEECH if heard is not None else {}
    return told


def _rope(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return how positions turn, in the two fields that the published code knows."""
    kind = parameters.get("rope_type", "default")
    scaling = {k: v for k, v in parameters.items() if k not in ("rope_theta", "rope_type")}
    return {
        "rope_theta": parameters["rope_theta"],
        "rope_scaling": None if kind == "default" else {**scaling, "type": kind},
    }


def _told_losses(config: UniMoeConfig) -> dict[str, Any]:
    """Return the losses of the 8-expert variant; the others have no such fields."""
    told: dict[str, Any] = {}
    for published, ours in _LOSSES.items():
        weight = getattr(config, ours)
        told |= {published: weight > 0, f"{published}_coef": weight}
    for kind, slots in config.expert_targets.items():
        told[f"{'audio' if kind == 'speech' else kind}_expert_indices"] = list(slots)
    return told


def _stride(config: UniMoeConfig) -> dict[str, Any]:
    """Return how the 8-expert variant says which layers are sparse: every n-th from the first."""
    layers, count = config.sparse_layers, config.text_config.num_hidden_layers
    every = layers[1] - layers[0] if len(layers) > 1 else count
    return {"moe_type": "dense" if every == 1 else "sparse", "moe_stride": every}


def _mixture(shapes: Mapping[str, Shape]) -> tuple[list[int], int]:
    """Return the sparse layers and the number of experts that the weights show."""
    layers: set[int] = set()
    experts = 0
    for name, shape in shapes.items():
        to = place(name, None)
        found = re.search(r"\.layers\.(\d+)\.mlp\.(experts|router)\.", to.target if to else "")
        if to is not None and found is not None:
            layers.add(int(found[1]))
            experts = max(experts, shape[0] if to.slot is None else to.slot + 1)
    return sorted(layers), experts
