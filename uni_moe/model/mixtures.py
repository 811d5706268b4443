"""The network's mixtures: which layers they are, what they decided, and experts held back.

Shapes
    B  sequences    T  positions
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from uni_moe.errors import ConfigError
from uni_moe.model.config import KINDS, UniMoeConfig
from uni_moe.model.moe import SparseFeedForward
from uni_moe.model.router import Routing
from uni_moe.model.towers import READERS


class MixturesMixin:
    """What a network knows of its sparse layers."""

    config: UniMoeConfig
    language_model: Any

    def sparse_layers(self) -> dict[int, SparseFeedForward]:
        """Return layer index -> its mixture."""
        layers = self.language_model.model.layers
        return {index: layers[index].mlp for index in self.config.sparse_layers}

    def _adapted_kinds(self) -> tuple[str, ...]:
        """Return the modalities that have an adapter in front of every router, in KINDS' order."""
        if not self.config.modality_adapters:
            return ()
        seen = {kind for kind, (tower, _) in READERS.items() if hasattr(self, tower)}
        return tuple(kind for kind in KINDS if kind in seen or kind == "text")

    def _tell_kinds(self, kind_BT: Tensor) -> None:
        """Tell mixtures with adapters the modality of each position, as their adapters count."""
        kinds = self._adapted_kinds()
        if kinds:
            places = [kinds.index(kind) if kind in kinds else len(kinds) for kind in KINDS]
            table = torch.tensor(places, device=kind_BT.device)
            for layer in self.sparse_layers().values():
                layer.kind_BT = table[kind_BT]

    def _take_routing(self) -> dict[int, Routing]:
        """Take every sparse layer's last routing away from it, for all positions.

        A layer that kept it would keep the whole graph of a finished step alive.

        Raises:
            ConfigError: routers shall learn from their routing, but it came without a graph.
        """
        found = {}
        for index, layer in self.sparse_layers().items():
            assert layer.routing is not None
            found[index], layer.routing = layer.routing, None
            if torch.is_grad_enabled() and layer.router.weight.requires_grad:
                self._check_graph(found[index])
        return found

    def _check_graph(self, routing: Routing) -> None:
        """Refuse to drop the gradient of a loss of the routing in silence."""
        names = ("balance", "target", "divergence")
        weighed = [name for name in names if getattr(self.config, f"{name}_coefficient")]
        if weighed and not routing.logits_TE.requires_grad:
            raise ConfigError(
                f"The routers cannot learn from {', '.join(weighed)}: there is no graph.",
                cause="reentrant checkpointing of activations runs the layers without one.",
                remedy='call gradient_checkpointing_enable({"use_reentrant": False}), the default.',
            )

    @contextmanager
    def experts_masked(self, masked: Mapping[int, Sequence[int]]) -> Iterator[None]:
        """Keep experts from being chosen while the block runs: layer index -> expert slots.

        Raises:
            ConfigError: a layer is not sparse, or has too few experts left for its tokens.
        """
        layers = self.sparse_layers()
        for index, experts in masked.items():
            left = set(range(self.config.num_experts)) - set(experts)
            if index not in layers or len(left) < self.config.experts_per_token:
                raise ConfigError(
                    f"Experts {list(experts)} of layer {index} cannot be masked.",
                    cause=f"the sparse layers are {sorted(layers)}, with {self.config.num_experts} "
                    f"experts, of which each token visits {self.config.experts_per_token}.",
                    remedy="mask fewer experts, in sparse layers.",
                )
        before = {index: layer.router.masked for index, layer in layers.items()}
        try:
            for index, experts in masked.items():
                layers[index].router.masked = tuple(experts)
            yield
        finally:
            for index, layer in layers.items():
                layer.router.masked = before[index]
