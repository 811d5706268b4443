"""The sizes of a published aligner, read off its weights.

A size whose tensor is gone is what config.json or the encoder says, at last what was published. The
import is refused for that tensor anyhow; with its size known, all other gaps are told with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import WhisperConfig

from uni_moe.model.encoders.beats import BeatsConfig

Shape = tuple[int, ...]
WINDOW_S = 30
_PROJECTOR = "model.mm_audio_aligner.projector.weight"
_DECODER = "model.mm_audio_aligner.decoder.audio_decoder."
_QFORMER = "model.mm_audio_aligner.qformer.qformer.encoder.layer."


def speech_aligner(
    told: Mapping[str, Any], shapes: Mapping[str, Shape], speech: WhisperConfig
) -> dict[str, int]:
    """Return the sizes of an aligner that is a Whisper decoder.

    Args:
        told: the published config.json.
        shapes: published name -> shape.
        speech: the configuration of its Whisper.
    """
    return {
        **_queries(told, shapes, "model.query_tokens"),
        "layers": _depth(shapes, _DECODER + "layers.") or speech.decoder_layers,
        "heads": told.get("mm_audio_attention_heads") or speech.decoder_attention_heads,
        "intermediate_size": _size(shapes, _DECODER + "layers.0.fc1.weight", 0)
        or speech.decoder_ffn_dim,
        "positions": _size(shapes, _DECODER + "embed_positions.weight", 0)
        or speech.max_target_positions,
        "window_s": WINDOW_S,
    }


def audio_aligner(
    told: Mapping[str, Any], shapes: Mapping[str, Shape], audio: BeatsConfig
) -> dict[str, int]:
    """Return the sizes of an aligner that is a Q-Former; as published it is as deep as BEATs.

    Args:
        told: the published config.json.
        shapes: published name -> shape.
        audio: the configuration of its BEATs.
    """
    return {
        **_queries(told, shapes, "model.mm_audio_aligner.query_tokens"),
        "layers": _depth(shapes, _QFORMER) or audio.encoder_layers,
        "heads": told.get("mm_audio_attention_heads") or audio.encoder_attention_heads,
        "intermediate_size": _size(shapes, _QFORMER + "0.intermediate_query.dense.weight", 0)
        or audio.encoder_ffn_embed_dim,
        "window_s": WINDOW_S,
    }


def _queries(told: Mapping[str, Any], shapes: Mapping[str, Shape], name: str) -> dict[str, int]:
    width = _size(shapes, name, 2) or _size(shapes, _PROJECTOR, 1)
    return {
        "query_tokens": _size(shapes, name, 1) or told.get("query_tokens_size") or 50,
        "width": width or told.get("mm_audio_hidden_size") or 768,
    }


def _size(shapes: Mapping[str, Shape], name: str, axis: int) -> int | None:
    """Return one of a tensor's sizes; None where it is gone, or has fewer dimensions."""
    return next(iter(shapes.get(name, ())[axis : axis + 1]), None)


def _depth(shapes: Mapping[str, Shape], prefix: str) -> int:
    found = {
        name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)
    }
    return len(found)
