"""Sections of params.yaml: what training starts from, and the shape of what is put on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EncoderTraining:
    """A tiny encoder, trained here from scratch, never on the answers that are evaluated."""

    objectives: tuple[Literal["caption", "reconstruct", "contrast"], ...]
    steps: int
    batch_size: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    clip_norm: float
    # objective -> how far media are cropped, shifted and lit while it trains, as a share of a side
    variation: Mapping[Literal["caption", "contrast"], float]
    save_every_steps: int
    architecture: Mapping[str, int]


@dataclass(frozen=True)
class EncoderFoundation:
    """An encoder: a pretrained folder in Hugging Face layout, or a tiny one to train here."""

    pretrained: str | None
    tiny: EncoderTraining | None


@dataclass(frozen=True)
class LanguageTraining:
    """A tiny language model and its tokenizer, trained here on text alone."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    max_positions: int
    steps: int
    batch_size: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    clip_norm: float
    save_every_steps: int


@dataclass(frozen=True)
class LanguageFoundation:
    """The language model: a pretrained folder in Hugging Face layout, or a tiny one."""

    pretrained: str | None
    tiny: LanguageTraining | None


@dataclass(frozen=True)
class Foundation:
    """Where training starts from. Video is seen by the image encoder."""

    image: EncoderFoundation
    audio: EncoderFoundation
    speech: EncoderFoundation
    language: LanguageFoundation


@dataclass(frozen=True)
class QueryConnector:
    """A connector that reads an encoder's features with learned queries."""

    query_tokens: int
    layers: int
    width: int
    heads: int
    intermediate_size: int
    window_s: int


@dataclass(frozen=True)
class ModelShape:
    """The parts of the network that the foundation does not fix."""

    # Decoder layers that become mixtures: a list, or a layout (interval: every second layer).
    sparse_layers: tuple[int, ...] | Literal["all", "interval", "first_half", "second_half"]
    experts_per_token: int
    vision_select_layer: int  # which of the vision tower's hidden states; -2 as published
    video_frames: int
    frame_time_embedding: bool
    standardize_features: bool
    system_prompt: str
    speech_connector: QueryConnector
    audio_connector: QueryConnector
