"""What a tiny encoder learns from, without the answers that are evaluated later.

Each objective is a head on the encoder's features and goes away with the training. None is part of
the published system, whose encoders come pretrained.

Shapes
    B  media in a batch    N  feature rows of one medium    D  encoder width
    P  numbers in one patch of the input    L  words of a caption
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Encode = Callable[[Tensor], Tensor]  # media (B, …) -> features (B, N, D)
MASKED_SHARE = 0.5
TEMPERATURE = 0.2


class Views(Protocol):
    """How one kind of input is cut in patches and varied."""

    def patches(self, x: Tensor) -> Tensor:
        """Cut inputs (B, …) into patches (B, N, P), in the order of the encoder's rows."""

    def hide(self, x: Tensor, hidden_BN: Tensor) -> Tensor:
        """Blank the hidden patches of inputs."""

    def vary(self, x: Tensor, variation: float, generator: torch.Generator) -> Tensor:
        """Return another view of the same media, up to `variation` (a share) away."""


@dataclass(frozen=True)
class Batch:
    """Media, their captions as word ids (B, L) padded with 0, and the step's randomness.

    Draws are made on the CPU and moved, so that no accelerator changes them.
    """

    media: Tensor
    captions_BL: Tensor | None
    seed: int

    def generator(self) -> torch.Generator:
        """Return a fresh generator, the same for the same step."""
        return torch.Generator().manual_seed(self.seed)


class Words:
    """The words of a set of captions, for the caption head alone."""

    PAD, START, END = 0, 1, 2

    def __init__(self, captions: Sequence[str]) -> None:
        found = sorted({word for caption in captions for word in caption.split()})
        self.index = {word: i + 3 for i, word in enumerate(found)}

    def __len__(self) -> int:
        """Return the number of ids, the three marks included."""
        return len(self.index) + 3

    def know(self, caption: str) -> bool:
        """Say whether at least one word of a caption has an id."""
        return any(word in self.index for word in caption.split())

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Return ids (B, L) with start and end, padded. Words never seen are left out."""
        rows = [
            [self.START, *(self.index[w] for w in caption.split() if w in self.index), self.END]
            for caption in captions
        ]
        length = max(map(len, rows))
        return torch.tensor([row + [self.PAD] * (length - len(row)) for row in rows])


class CaptionObjective(nn.Module):
    """A small causal decoder that writes the caption (or transcript) from the features."""

    def __init__(
        self, width: int, words: int, variation: float, *, layers: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        self.variation = variation
        self.embed = nn.Embedding(words, width)
        self.position = nn.Parameter(torch.randn(64, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        layer = nn.TransformerDecoderLayer(
            width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, layers, norm=nn.LayerNorm(width))
        self.head = nn.Linear(width, words)

    def forward(self, encode: Encode, batch: Batch, views: Views) -> Tensor:
        """Return the mean cross-entropy of the captions' words."""
        assert batch.captions_BL is not None
        x = views.vary(batch.media, self.variation, batch.generator())
        ids_BL = batch.captions_BL[:, : self.position.shape[0]]
        inputs, targets = ids_BL[:, :-1], ids_BL[:, 1:]
        length = inputs.shape[1]
        causal = torch.full((length, length), -math.inf, device=x.device).triu(1)
        h_BLD = self.decoder(
            self.embed(inputs) + self.position[:length], self.norm(encode(x)), tgt_mask=causal
        )
        logits = self.head(h_BLD)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=Words.PAD)


class ReconstructObjective(nn.Module):
    """A linear head that fills in hidden patches; targets are normalized patch by patch."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, patch)

    def forward(self, encode: Encode, batch: Batch, views: Views) -> Tensor:
        """Return the mean squared error over the hidden patches."""
        target_BNP = views.patches(batch.media)
        draws_BN = torch.rand(target_BNP.shape[:2], generator=batch.generator())
        hidden_BN = (draws_BN < MASKED_SHARE).to(batch.media.device)
        features_BND = encode(views.hide(batch.media, hidden_BN))
        target_BNP = F.layer_norm(target_BNP, target_BNP.shape[-1:], eps=1e-2)
        error_BN = (self.head(self.norm(features_BND)) - target_BNP).square().mean(-1)
        return (error_BN * hidden_BN).sum() / hidden_BN.sum().clamp(min=1)


class ContrastObjective(nn.Module):
    """Two views of one medium agree, views of two media do not (normalized temperature loss)."""

    def __init__(self, width: int, variation: float) -> None:
        super().__init__()
        self.variation = variation
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, encode: Encode, batch: Batch, views: Views) -> Tensor:
        """Return the mean cross-entropy of picking the other view out of the batch."""
        generator = batch.generator()
        both = torch.cat([views.vary(batch.media, self.variation, generator) for _ in range(2)])
        z = F.normalize(self.head(self.norm(encode(both).mean(1))), dim=-1)
        likeness = z @ z.T / TEMPERATURE
        likeness.fill_diagonal_(-math.inf)
        half = batch.media.shape[0]
        partner = torch.arange(2 * half, device=z.device).roll(half)
        return F.cross_entropy(likeness, partner)
