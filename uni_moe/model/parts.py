"""The parts of the network that a phase may train, by name, as data."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from uni_moe.errors import ConfigError

PARTS: dict[str, str] = {
    "connector.image": r"(^|\.)image_connector\.",
    "connector.audio": r"(^|\.)audio_connector\.",
    "connector.speech": r"(^|\.)speech_connector\.",
    "projection.audio": r"(^|\.)audio_connector\.projector\.",
    "projection.speech": r"(^|\.)speech_connector\.projector\.",
    "router": r"\.mlp\.router\.",
    "modality_adapters": r"\.mlp\.adapters\.",
    "lora.attention": r"\.self_attn\..*\.lora_[AB]\.",
    "lora.feed_forward": r"\.mlp\.(gate|up|down)_proj\.lora_[AB]\.",
    "lora.experts": r"\.mlp\.experts\..*lora_[AB]\.",
    "language": r"(^|\.)language_model\.(?!.*lora_)",
}


def learn(module: nn.Module, parts: Iterable[str]) -> list[str]:
    """Let exactly these parts learn and freeze the rest; return the names that learn.

    Raises:
        ConfigError: a part is unknown, or the network has no parameter of it.
    """
    wanted = list(parts)
    unknown = sorted(set(wanted) - set(PARTS))
    if unknown:
        raise ConfigError(
            f"No part of the model is called {', '.join(unknown)}.",
            cause="`learns` in params.yaml names a part that does not exist.",
            remedy=f"use some of: {', '.join(PARTS)}.",
        )
    found: dict[str, list[str]] = {part: [] for part in wanted}
    for name, parameter in module.named_parameters():
        part = next((p for p in wanted if re.search(PARTS[p], name)), None)
        parameter.requires_grad_(part is not None)
        if part is not None:
            found[part].append(name)
    empty = [part for part, names in found.items() if not names]
    if empty:
        raise ConfigError(
            f"This phase's model has no {', '.join(empty)} to train.",
            cause="`learns` names a part that the phase does not build.",
            remedy="take it out of `learns`, or add the modality it belongs to to `blend`.",
        )
    return sorted(name for names in found.values() for name in names)
