"""The frozen encoders of a network: how they run, and what their output depends on.

Shapes
    N  media (or windows of sound)    F  frames    P  patches    V  an encoder's width
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from uni_moe.errors import ConfigError
from uni_moe.model.config import UniMoeConfig

READERS = {  # kind of media -> its encoder and its connector
    "image": ("vision_tower", "image_connector"),
    "video": ("vision_tower", "image_connector"),
    "audio": ("audio_tower", "audio_connector"),
    "speech": ("speech_tower", "speech_connector"),
}
TOWERS = ("vision_tower", "audio_tower", "speech_tower")
# What a configuration says beside how the encoder computes; weights tell their own type.
_BESIDE = {"_name_or_path", "name_or_path", "architectures", "transformers_version", "dtype"}


class TowersMixin:
    """What is done with frozen encoders, by a network or by whoever holds them for it."""

    config: UniMoeConfig
    vision_tower: Any

    def towers(self) -> list[nn.Module]:
        """Return the frozen encoders that are here."""
        return [getattr(self, name) for name in TOWERS if hasattr(self, name)]

    @contextmanager
    def towers_aside(self) -> Iterator[None]:
        """Hide the frozen encoders from who trains the network, while they still can be used.

        They are no part of its modules while the block runs, so nobody spreads, casts, averages or
        saves what does not learn.
        """
        modules, own = self.__dict__["_modules"], self.__dict__
        order = list(modules)
        taken = {name: modules.pop(name) for name in TOWERS if name in modules}
        own.update(taken)
        try:
            yield
        finally:
            rest = {**modules, **{name: own.pop(name) for name in taken}}
            modules.clear()
            modules.update({name: rest.pop(name) for name in order if name in rest} | rest)

    def tower(self, kind: str) -> nn.Module:
        """Return the encoder that reads a kind of media.

        Raises:
            ConfigError: this network was built without that encoder.
        """
        found: nn.Module = self._reader(kind, 0)
        return found

    @torch.no_grad()
    def encode(self, kind: str, values: Tensor, padding: Tensor | None = None) -> Tensor:
        """Run a frozen encoder: what it returns can be kept and given to `forward` again.

        Shapes:
            image (N, 3, H, W) -> (N, P, V); video (N, F, 3, H, W) -> (N, F, P, V);
            audio (N, frames, 128) and padding (N, samples) -> (N, rows, V);
            speech (N, mel bins, frames) -> (N, rows, V).

        Raises:
            ConfigError: this network was built without that encoder.
        """
        tower = self.tower(kind)
        values = values.to(next(tower.parameters()).dtype)
        features: Tensor
        if kind == "image":
            features = self._see(values)
        elif kind == "video":
            frames = self._see(values.flatten(0, 1))
            features = frames.view(*values.shape[:2], *frames.shape[1:])
        elif kind == "audio":
            features = tower(values, padding)
        else:
            features = tower(values).last_hidden_state
        return features

    def encoder_facts(self, kind: str) -> dict[str, Any]:
        """Return how a kind's encoder computes, weights aside.

        Raises:
            ConfigError: this network was built without that encoder.
        """
        tower: Any = self.tower(kind)
        told = {k: v for k, v in tower.config.to_dict().items() if k not in _BESIDE}
        facts = {
            "class": type(tower).__name__,
            "config": told,
            "attention": getattr(tower.config, "_attn_implementation", None),
        }
        if kind in ("image", "video"):
            facts["select_layer"] = self.config.vision_select_layer
        return facts

    def _reader(self, kind: str, which: int) -> Any:  # noqa: ANN401 - an encoder or a connector
        name = READERS[kind][which]
        if not hasattr(self, name):
            raise ConfigError(
                f"This network cannot read {kind}: it has no {name}.",
                cause="it was built for other modalities, without that encoder.",
                remedy=f"leave {kind} out of the conversation, or use a model with that encoder.",
            )
        return getattr(self, name)

    def _see(self, pixels: Tensor) -> Tensor:
        """Return the patches of the chosen hidden state, without the class token."""
        out = self.vision_tower(pixel_values=pixels, output_hidden_states=True)
        chosen: Tensor = out.hidden_states[self.config.vision_select_layer]
        return chosen[:, 1:]
