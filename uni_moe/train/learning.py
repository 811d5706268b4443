"""What learns in a phase, counted on the meta device: no weight is read, none takes memory."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from uni_moe.artifacts import Layout, read_json
from uni_moe.config import ModelShape, Phase
from uni_moe.errors import LineageError
from uni_moe.model import adapters
from uni_moe.model.config import UniMoeConfig, sparse_layers_of
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.parts import PARTS, learn
from uni_moe.train.networks import choices_of
from uni_moe.train.pretrained import PRETRAINED, sizes_in
from uni_moe.train.sizes import Network, Weights, network_of
from uni_moe.train.work import Work, work_of

_LAYER = re.compile(r"language_model\.model\.layers\.(\d+)\.")
_TOWER = re.compile(r"(^|\.)(vision|audio|speech)_tower\.")
_CONNECTOR = re.compile(r"(^|\.)(image|audio|speech)_connector\.")
_EXPERTS = re.compile(r"\.mlp\.experts\.")


@dataclass(frozen=True)
class Learning:
    """A phase's network: its sizes, how many numbers it has, and how many of each part learn.

    `connectors` counts each connector whole; `work` is what a position and a label cost.
    """

    network: Network
    weights: Weights
    parts: Mapping[str, int]
    connectors: Mapping[str, int]
    work: Work

    @property
    def parameters(self) -> int:
        """All numbers of the network, adapters included."""
        return self.weights.frozen + self.weights.trained


def learning_of(
    config: UniMoeConfig, learns: Collection[str], *, rank: int | None, layers: Collection[int]
) -> Learning:
    """Count a network whose parts `learns` learn.

    Args:
        config: the network's configuration.
        learns: names of its parts.
        rank: of the low-rank adapters; None without any.
        layers: layers whose feed-forwards get adapters.
    """
    with torch.device("meta"):
        module: nn.Module = UniMoeForConditionalGeneration(config)
        if rank is not None:
            module = adapters.attach(
                module, list(learns), layers=list(layers), rank=rank, alpha=1, dropout=0.0, seed=0
            )
    learn(module, learns)
    network = network_of(config, learns, rank=rank or 0, adapted=layers)
    weights, parts = _weights(module, network), _parts(module, learns)
    return Learning(network, weights, parts, _connectors(module), work_of(module))


def phase_learning(phase: Phase, config: UniMoeConfig, shape: ModelShape) -> Learning:
    """Count a phase's network; `shape` says which layers are mixtures, or will be."""
    layers = sparse_layers_of(shape.sparse_layers, config.text_config.num_hidden_layers)
    rank = None if phase.lora is None else phase.lora.rank
    return learning_of(config, phase.learns, rank=rank, layers=layers)


def dense(config: UniMoeConfig, encoders: Collection[str]) -> UniMoeConfig:
    """Return the dense network that phases before the assembly train, with these encoders."""
    return UniMoeConfig(
        config.text_config,
        config.vision_config if "image" in encoders else None,
        config.speech_config if "speech" in encoders else None,
        config.audio_config if "audio" in encoders else None,
        experts_per_token=config.experts_per_token,
        vision_select_layer=config.vision_select_layer,
        video_frames=config.video_frames,
        frame_time_embedding=config.frame_time_embedding,
        standardize_features=config.standardize_features,
        speech_connector=config.speech_connector,
        audio_connector=config.audio_connector,
    )


def config_here(layout: Layout, shape: ModelShape, encoders: Collection[str]) -> UniMoeConfig:
    """Return the dense network of the foundation that is here; only its config.json are read.

    Raises:
        LineageError: a part of the foundation is not here.
    """
    parts = {
        part: sizes_in(part, recorded_folder(layout, part))
        for part in sorted({*encoders, "language"})
    }
    return UniMoeConfig(
        parts["language"],
        parts.get("image"),
        parts.get("speech"),
        parts.get("audio"),
        **choices_of(shape),
    )


def recorded_folder(layout: Layout, part: str) -> Path:
    """Return where a part of the foundation lies; it is verified when its weights are read.

    Raises:
        LineageError: it is not here.
    """
    artifact = layout.foundation(part)
    note = artifact / PRETRAINED
    folder = (layout.root / read_json(note)["path"]).resolve() if note.is_file() else artifact
    if not (folder / "config.json").is_file():
        raise LineageError(
            f"There is no config.json in {folder}.",
            cause=f"foundation@{part} has not run here, or its pretrained folder is gone.",
            remedy=f"run `dvc repro foundation@{part}`, or put the folder back.",
        )
    return folder


def _weights(module: nn.Module, network: Network) -> Weights:
    frozen = trained = towers = experts = learning_experts = head = largest = 0
    by_layer: dict[int, int] = {}
    for name, parameter in module.named_parameters():
        count, learns = parameter.numel(), parameter.requires_grad
        in_layer = _LAYER.search(name)
        trained += count * learns
        largest = max(largest, count * learns)
        frozen += count * (not learns)
        towers += count * bool(_TOWER.search(name))
        if _EXPERTS.search(name):
            experts += count * (not learns)
            learning_experts += count * learns
        if in_layer is not None:
            index = int(in_layer[1])
            by_layer[index] = by_layer.get(index, 0) + count * learns
        elif "lm_head." in name:
            head += count * learns
    counts = tuple(by_layer[index] for index in sorted(by_layer))
    learned = learning_experts, counts, head, largest
    return Weights(frozen, trained, towers, experts, *learned, network.decoder.experts)


def _connectors(module: nn.Module) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, parameter in module.named_parameters():
        connector = _CONNECTOR.search(name)
        if connector is not None:
            found[connector[2]] = found.get(connector[2], 0) + parameter.numel()
    return found


def _parts(module: nn.Module, learns: Collection[str]) -> dict[str, int]:
    found = dict.fromkeys(learns, 0)
    for name, parameter in module.named_parameters():
        part = next((one for one in learns if re.search(PARTS[one], name)), None)
        if part is not None and parameter.requires_grad:
            found[part] += parameter.numel()
    return found
