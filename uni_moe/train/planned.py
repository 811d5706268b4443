"""The network that params describe, before anything of it is fetched, trained or held in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from uni_moe.config import EncoderFoundation, LanguageFoundation, LanguageTraining, Params
from uni_moe.errors import ConfigError
from uni_moe.model.architectures import ARCHITECTURES
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.describing import telling_of
from uni_moe.train.encoders import TINY
from uni_moe.train.language import language_config
from uni_moe.train.networks import choices_of
from uni_moe.train.pretrained import sizes_in


def planned_config(params: Params, root: Path) -> UniMoeConfig:
    """Return the configuration of the mixture that params lead to.

    A pretrained folder is asked for its sizes where it is there; a published one is known by its
    name. A tiny language model may find fewer tokens in its texts than it is allowed.

    Raises:
        ConfigError: a pretrained part is neither there nor known by name.
    """
    parts = {
        part: _sizes(part, getattr(params.foundation, part), root)
        for part in ("image", "audio", "speech", "language")
    }
    shape, assembly, losses = params.model, params.assembly, params.tune.losses
    return UniMoeConfig(
        parts["language"],
        parts["image"],
        parts["speech"],
        parts["audio"],
        sparse_layers=shape.sparse_layers,
        num_experts=len(assembly.slots),
        **choices_of(shape),
        modality_adapters=assembly.modality_adapters,
        balance_coefficient=losses.balance,
        target_coefficient=losses.target,
        divergence_coefficient=losses.divergence,
        expert_targets=losses.expert_targets,
    )


def _sizes(part: str, chosen: EncoderFoundation | LanguageFoundation, root: Path) -> Any:  # noqa: ANN401
    """Return the configuration of one part of the foundation."""
    if chosen.pretrained is not None:
        return _pretrained(part, root / chosen.pretrained)
    assert chosen.tiny is not None
    if isinstance(chosen.tiny, LanguageTraining):
        return language_config(chosen.tiny, vocab_size=chosen.tiny.vocab_size)
    with torch.device("meta"):
        return TINY[part](chosen.tiny.architecture).module.config


def _pretrained(part: str, folder: Path) -> PreTrainedConfig:
    file = folder / "config.json"
    if file.is_file():
        with telling_of(file):
            return sizes_in(part, folder)
    known = ARCHITECTURES.get(folder.name)
    if known is None:
        raise ConfigError(
            f"The sizes of foundation.{part} are not known: there is no {file}.",
            cause="the pretrained folder is not here, and its name is none of the published parts.",
            remedy=f"fetch the folder, or name one of {', '.join(ARCHITECTURES)}.",
        )
    return known()
