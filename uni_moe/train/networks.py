"""Builds the network of a phase from the foundation and what earlier phases left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlamaForCausalLM,
    WhisperFeatureExtractor,
)

from uni_moe.artifacts import Layout, parent_ids
from uni_moe.config import ModelShape
from uni_moe.errors import LineageError
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.train.pretrained import foundation_folder, load_language, load_tower

CONNECTOR = "connector.safetensors"
ENCODERS = ("image", "audio", "speech")
_TOWER = {"image": "vision_tower", "audio": "audio_tower", "speech": "speech_tower"}


def encoder_of(kind: str) -> str:
    """Return the foundation's part that reads a kind of media."""
    return "image" if kind == "video" else kind


def choices_of(shape: ModelShape) -> dict[str, Any]:
    """Return what params say of every network, by the names of UniMoeConfig."""
    return {
        "experts_per_token": shape.experts_per_token,
        "vision_select_layer": shape.vision_select_layer,
        "video_frames": shape.video_frames,
        "frame_time_embedding": shape.frame_time_embedding,
        "standardize_features": shape.standardize_features,
        "speech_connector": vars(shape.speech_connector),
        "audio_connector": vars(shape.audio_connector),
    }


@dataclass(frozen=True)
class Built:
    """A dense network and its processor, and the artifacts both were read from."""

    model: UniMoeForConditionalGeneration
    processor: UniMoeProcessor
    parents: tuple[Path, ...]


def build_dense(
    layout: Layout,
    shape: ModelShape,
    encoders: Iterable[str],
    *,
    aligned: Iterable[str],
    seed: int,
) -> Built:
    """Build the dense network with some encoders; `aligned` connectors are read, others start new.

    Raises:
        LineageError: a connector does not fit the network.
    """
    present, read = sorted(set(encoders)), sorted(set(aligned))
    parents = (
        *(layout.foundation(part) for part in (*present, "language")),
        *(layout.aligned(connector) for connector in read),
    )
    parent_ids(layout, *parents)  # verified before they are read
    folders = {part: foundation_folder(layout, part) for part in (*present, "language")}
    towers = {part: load_tower(part, folders[part]) for part in present}
    language = load_language(folders["language"])
    tokenizer = AutoTokenizer.from_pretrained(folders["language"], local_files_only=True)
    torch.manual_seed(seed)
    config = _config(language, towers, shape)
    model = UniMoeForConditionalGeneration(config)
    model.language_model.load_state_dict(language.state_dict())
    for part, tower in towers.items():
        getattr(model, _TOWER[part]).load_state_dict(tower.state_dict())
    for connector in read:
        load_connector(model, layout.aligned(connector) / CONNECTOR)
    image = folders.get("image")
    speech = folders.get("speech")
    processor = UniMoeProcessor.for_model(
        config,
        tokenizer=tokenizer,
        image_processor=CLIPImageProcessorPil.from_pretrained(image)
        if image is not None
        else CLIPImageProcessorPil(),
        feature_extractor=WhisperFeatureExtractor.from_pretrained(speech)
        if speech is not None
        else WhisperFeatureExtractor(),
        system_prompt=shape.system_prompt,
    )
    return Built(model, processor, parents)


def connector_state(model: nn.Module, connector: str) -> dict[str, Tensor]:
    """Return a connector's tensors under the network's names."""
    marker = f"{connector}_connector."
    return {
        name[name.index(marker) :]: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if marker in name
    }


def load_connector(model: nn.Module, file: Path) -> None:
    """Put a saved connector into a network.

    Raises:
        LineageError: names or shapes differ from the network's.
    """
    saved = load_file(file)
    own = model.state_dict()
    wrong = sorted(
        name for name, t in saved.items() if name not in own or own[name].shape != t.shape
    )
    if wrong:
        raise LineageError(
            f"{file} does not fit the network: {', '.join(wrong[:5])}.",
            cause="the connector was aligned with other sizes.",
            remedy="run `dvc repro`, which aligns it again.",
        )
    model.load_state_dict(saved, strict=False)


def _config(
    language: LlamaForCausalLM, towers: Mapping[str, Any], shape: ModelShape
) -> UniMoeConfig:
    def of(part: str) -> Any:  # noqa: ANN401 - a transformers configuration or None
        if part not in towers:
            return None
        towers[part].config.name_or_path = ""  # where it lay is no part of what it is
        return towers[part].config

    language.config.name_or_path = ""
    return UniMoeConfig(
        text_config=language.config,
        vision_config=of("image"),
        speech_config=of("speech"),
        audio_config=of("audio"),
        **choices_of(shape),
    )
