"""Connectors: what carries an encoder's features into the language model's space.

Shapes
    B  media    F  frames of a film    P  patches of a picture    N  feature rows
    V  encoder width    Q  query tokens    D  language width
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Blip2QFormerConfig, Blip2QFormerModel, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperDecoder


class Standardize(nn.Module):
    """Give each feature row mean 0 and variance 1, or pass it on.

    The published connectors have none. Small encoders vary little from row to row without it.
    """

    def __init__(self, *, active: bool) -> None:
        super().__init__()
        self.active = active

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        return F.layer_norm(features, features.shape[-1:]) if self.active else features


class ImageConnector(nn.Module):
    """Two linear layers with a GELU between, per patch (`mlp2x_gelu`), for pictures and films.

    A film is the mean of its frames after the connector. The mean forgets their order; with
    `frames`, a learned embedding of a frame's time is added before the GELU, where it can interact
    with what is seen. (Added after the last linear layer, it would be the same constant for all.)
    """

    def __init__(self, width: int, out: int, *, frames: int | None, standardize: bool) -> None:
        super().__init__()
        self.standardize = Standardize(active=standardize)
        self.enter = nn.Linear(width, out)
        self.leave = nn.Linear(out, out)
        self.frame_time = nn.Parameter(torch.empty(frames, out)) if frames else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the start of what is this module's own; its children draw theirs."""
        if self.frame_time is not None:
            nn.init.normal_(self.frame_time, std=0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Return rows for pictures (B, P, V) or films (B, F, P, V): (B, P, D) for both."""
        h: Tensor = self.enter(self.standardize(features))
        is_film = features.dim() == 4
        if is_film and self.frame_time is not None:
            h = h + self.frame_time[None, :, None]
        rows: Tensor = self.leave(F.gelu(h))
        return rows.mean(1) if is_film else rows


class SpeechConnector(nn.Module):
    """Causal queries that read the speech encoder: a Whisper decoder fed with learned queries."""

    def __init__(
        self, width: int, out: int, shape: Mapping[str, int], *, standardize: bool
    ) -> None:
        super().__init__()
        self.standardize = Standardize(active=standardize)
        self.widen = nn.Identity() if width == shape["width"] else nn.Linear(width, shape["width"])
        config = WhisperConfig(
            vocab_size=1,
            pad_token_id=0,
            bos_token_id=0,
            eos_token_id=0,
            decoder_start_token_id=0,
            d_model=shape["width"],
            decoder_layers=shape["layers"],
            decoder_attention_heads=shape["heads"],
            decoder_ffn_dim=shape["intermediate_size"],
            max_target_positions=shape.get("positions", max(448, shape["query_tokens"])),
            dropout=0.0,
        )
        self.query_tokens = nn.Parameter(torch.empty(1, shape["query_tokens"], shape["width"]))
        self.reset_parameters()
        self.decoder = WhisperDecoder._from_config(config)  # noqa: SLF001 - transformers' own way
        del self.decoder.embed_tokens  # it is fed embeddings; a vocabulary would be dead weight
        self.projector = nn.Linear(shape["width"], out)

    def reset_parameters(self) -> None:
        """Start the queries at zero, as published; the decoder's positions tell them apart."""
        nn.init.zeros_(self.query_tokens)

    def forward(self, features_BNV: Tensor) -> Tensor:
        """Return rows, (B, Q, D)."""
        memory = self.widen(self.standardize(features_BNV))
        query = self.query_tokens.expand(memory.shape[0], -1, -1)
        out = self.decoder(inputs_embeds=query, encoder_hidden_states=memory, use_cache=False)
        rows: Tensor = self.projector(out.last_hidden_state)
        return rows


class AudioConnector(nn.Module):
    """Queries that see each other both ways and the audio encoder: BLIP-2's Q-Former.

    Queries start from a normal of 0.02; zeros, as published, are told apart by dropout alone.
    """

    def __init__(
        self, width: int, out: int, shape: Mapping[str, int], *, standardize: bool
    ) -> None:
        super().__init__()
        self.standardize = Standardize(active=standardize)
        self.query_tokens = nn.Parameter(torch.empty(1, shape["query_tokens"], shape["width"]))
        self.reset_parameters()
        config = Blip2QFormerConfig(
            hidden_size=shape["width"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            intermediate_size=shape["intermediate_size"],
            encoder_hidden_size=width,
            cross_attention_frequency=2,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            layer_norm_eps=1e-12,
        )
        self.qformer = Blip2QFormerModel._from_config(config)  # noqa: SLF001
        self.projector = nn.Linear(shape["width"], out)

    def reset_parameters(self) -> None:
        """Draw the queries."""
        nn.init.normal_(self.query_tokens, std=0.02)

    def forward(self, features_BNV: Tensor) -> Tensor:
        """Return rows, (B, Q, D)."""
        memory = self.standardize(features_BNV)
        query = self.query_tokens.expand(memory.shape[0], -1, -1)
        out = self.qformer(query_embeds=query, encoder_hidden_states=memory)
        rows: Tensor = self.projector(out.last_hidden_state)
        return rows
