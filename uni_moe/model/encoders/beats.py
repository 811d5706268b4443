"""BEATs, the encoder of environmental audio, as published; transformers has none.

Names of parameters are the published ones. Source: reference implementation's facts, arXiv
2212.09058, and the variant that Uni-MoE uses (no final LayerNorm, all layers post-norm).

Shapes
    B  clips    T  filterbank frames    M  mel bins    N  patches, time-major    D  width
    H  heads    d  D / H
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel


class BeatsConfig(PreTrainedConfig):  # type: ignore[misc] # transformers is untyped here
    """Sizes of a BEATs encoder; the defaults are those of BEATs iter3+ AS2M."""

    model_type = "uni_moe_beats"

    def __init__(  # noqa: PLR0913 - a configuration is a list of choices
        self,
        input_patch_size: int = 16,
        embed_dim: int = 512,
        encoder_layers: int = 12,
        encoder_embed_dim: int = 768,
        encoder_ffn_embed_dim: int = 3072,
        encoder_attention_heads: int = 12,
        num_buckets: int = 320,
        max_distance: int = 800,
        conv_pos: int = 128,
        conv_pos_groups: int = 16,
        mel_bins: int = 128,
        **kwargs: Any,  # noqa: ANN401 - transformers' own keys
    ) -> None:
        self.input_patch_size = input_patch_size
        self.embed_dim = embed_dim
        self.encoder_layers = encoder_layers
        self.encoder_embed_dim = encoder_embed_dim
        self.encoder_ffn_embed_dim = encoder_ffn_embed_dim
        self.encoder_attention_heads = encoder_attention_heads
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.conv_pos = conv_pos
        self.conv_pos_groups = conv_pos_groups
        self.mel_bins = mel_bins
        super().__init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """The width of the features."""
        return self.encoder_embed_dim


class Beats(PreTrainedModel):  # type: ignore[misc] # transformers is untyped here
    """Filterbanks in, one feature row per 16 x 16 patch out."""

    config_class = BeatsConfig
    base_model_prefix = "beats"
    main_input_name = "fbank_BTM"
    _supports_sdpa = True

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__(config)
        size = config.input_patch_size
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, size, stride=size, bias=False)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.post_extract_proj = nn.Linear(config.embed_dim, config.encoder_embed_dim)
        self.encoder = BeatsEncoder(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Start as a fresh BEATs: small normal weights, so that deep-norm is stable."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, PositionalConvolution):
            nn.init.normal_(module.weight_v, std=math.sqrt(4 / (module.kernel * module.width)))
            module.weight_g.data.copy_(module.weight_v.data.norm(dim=(0, 1), keepdim=True))
            nn.init.zeros_(module.bias)
        elif isinstance(module, GatedAttention):
            nn.init.ones_(module.grep_a)

    def forward(self, fbank_BTM: Tensor, sample_padding: Tensor | None = None) -> Tensor:
        """Return features (B, N, D).

        Args:
            fbank_BTM: standardized log filterbanks.
            sample_padding: True where a waveform sample is padding, (B, samples).
        """
        patches = self.patch_embedding(fbank_BTM[:, None])  # (B, E, time, frequency)
        x_BND = patches.flatten(2).transpose(1, 2)
        x_BND = self.post_extract_proj(self.layer_norm(x_BND))
        padding_BN = None
        if sample_padding is not None:
            frames = _thin(sample_padding, fbank_BTM.shape[1])
            padding_BN = _thin(frames, x_BND.shape[1])
        return self.encoder(x_BND, padding_BN)


class BeatsEncoder(nn.Module):
    """A convolution for positions, then post-norm layers that share one table of distances."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.pos_conv = nn.ModuleList([PositionalConvolution(config)])
        self.layer_norm = nn.LayerNorm(config.encoder_embed_dim)
        self.layers = nn.ModuleList(BeatsLayer(config, i) for i in range(config.encoder_layers))

    def forward(self, x_BND: Tensor, padding_BN: Tensor | None) -> Tensor:
        """Return features (B, N, D)."""
        if padding_BN is not None:
            x_BND = x_BND.masked_fill(padding_BN[..., None], 0.0)
        x_BND = self.layer_norm(x_BND + F.gelu(self.pos_conv[0](x_BND)))
        first = self.layers[0].self_attn
        assert isinstance(first, GatedAttention)
        bias_HNN = first.distances(x_BND.shape[1], x_BND.device)
        for layer in self.layers:
            x_BND = layer(x_BND, bias_HNN, padding_BN)
        return x_BND


class PositionalConvolution(nn.Module):
    """A grouped convolution with weight norm over all but the kernel's axis."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.width, self.kernel = config.encoder_embed_dim, config.conv_pos
        self.groups = config.conv_pos_groups
        self.weight_g = nn.Parameter(torch.ones(1, 1, self.kernel))
        self.weight_v = nn.Parameter(
            torch.zeros(self.width, self.width // self.groups, self.kernel)
        )
        self.bias = nn.Parameter(torch.zeros(self.width))

    def forward(self, x_BND: Tensor) -> Tensor:
        """Return (B, N, D); an even kernel drops its last output."""
        norm = self.weight_v.norm(dim=(0, 1), keepdim=True)
        weight = self.weight_g * self.weight_v / norm
        y = F.conv1d(
            x_BND.transpose(1, 2), weight, self.bias, padding=self.kernel // 2, groups=self.groups
        )
        return (y[..., :-1] if self.kernel % 2 == 0 else y).transpose(1, 2)


class BeatsLayer(nn.Module):
    """Attention and feed-forward, each as LN(alpha * x + f(x)) with deep-norm's alpha."""

    def __init__(self, config: BeatsConfig, index: int) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.alpha = (2 * config.encoder_layers) ** 0.25
        self.self_attn = GatedAttention(config, has_table=index == 0)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x_BND: Tensor, bias_HNN: Tensor, padding_BN: Tensor | None) -> Tensor:
        """Return (B, N, D)."""
        attended = self.self_attn(x_BND, bias_HNN, padding_BN)
        x_BND = self.self_attn_layer_norm(self.alpha * x_BND + attended)
        fed = self.fc2(F.gelu(self.fc1(x_BND)))
        return self.final_layer_norm(self.alpha * x_BND + fed)


class GatedAttention(nn.Module):
    """Self-attention whose bias by distance is gated by the query."""

    def __init__(self, config: BeatsConfig, *, has_table: bool) -> None:
        super().__init__()
        width, self.heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.buckets, self.max_distance = config.num_buckets, config.max_distance
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.grep_linear = nn.Linear(width // self.heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))
        # All layers read one table, which the first layer owns.
        self.relative_attention_bias = nn.Embedding(self.buckets, self.heads) if has_table else None

    def distances(self, length: int, device: torch.device) -> Tensor:
        """Return the table's bias for every pair of positions, (H, N, N)."""
        assert self.relative_attention_bias is not None
        position = torch.arange(length, device=device)  # the table's own may be the disk
        bucket_NN = distance_bucket(
            position[None, :] - position[:, None], self.buckets, self.max_distance
        )
        return self.relative_attention_bias(bucket_NN).permute(2, 0, 1)

    def forward(self, x_BND: Tensor, bias_HNN: Tensor, padding_BN: Tensor | None) -> Tensor:
        """Return (B, N, D)."""
        split = (*x_BND.shape[:2], self.heads, -1)
        q, k, v = (
            project(x_BND).view(split).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        a, b = torch.sigmoid(self.grep_linear(q).unflatten(-1, (2, 4)).sum(-1)).unbind(-1)
        gate_BHN = a[..., None] * (b[..., None] * self.grep_a - 1.0) + 2.0
        bias = gate_BHN * bias_HNN
        if padding_BN is not None:
            bias = bias.masked_fill(padding_BN[:, None, None, :], -math.inf)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out_proj(y.transpose(1, 2).flatten(2))


def distance_bucket(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Map signed distances to buckets: exact when near, logarithmic when far, two directions."""
    half = buckets // 2
    near = half // 2
    size = distance.abs()
    far = near + (
        torch.log(size.clamp(min=1).float() / near) / math.log(max_distance / near) * (half - near)
    ).to(torch.long)
    return (distance > 0).long() * half + torch.where(size < near, size, far.clamp(max=half - 1))


def _thin(padding: Tensor, length: int) -> Tensor:
    """Reduce a padding mask to `length` positions, as published: all samples of a cell padded.

    The second reduction pairs frames 2p and 2p + 1 with patch p, which is not the patch's own time.
    """
    extra = padding.shape[1] % length
    if extra:
        padding = padding[:, :-extra]
    return padding.view(padding.shape[0], length, -1).all(-1)
