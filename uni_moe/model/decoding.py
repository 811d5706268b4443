"""One step of generation in compiled code: a decoder's layers for one new position per sequence.

Such a step is bound by memory, and what a framework does around each product costs as much as the
products. Here every weight is read once and little stands around it. Projections and feed-forwards
that something else wraps (an adapter, a hook that moves weights) are called as they are.

Shapes
    B  sequences    D  model width    S  positions seen, the new one included    h  heads
    k  heads of keys    d  size of a head
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaMLP,
    LlamaModel,
)

from uni_moe import routes
from uni_moe.model.backends.few import FEW_TOKENS
from uni_moe.model.norms import RMSNorm
from uni_moe.model.segments import ROUTE
from uni_moe.native import Native, native, takes, threads

_ATTENTIONS = ("eager", "sdpa", ROUTE)  # ways to one result; others may look elsewhere


def is_step(
    decoder: Any,  # noqa: ANN401 - LlamaModel, whose parts are untyped
    x_BTD: Tensor,
    mask: Tensor | None,
    cache: Any,  # noqa: ANN401 - any cache of transformers, or None
    asked: Mapping[str, Any],
) -> bool:
    """Return whether this forward pass is such a step, and nothing is asked for beyond its result.

    Args:
        decoder: the language model's decoder.
        x_BTD: what enters its first layer.
        mask: (B, S), 0 where a position is hidden; None shows all.
        cache: of earlier positions.
        asked: further arguments of the forward pass.
    """
    if not is_small(x_BTD) or _matters(asked):
        return False
    if type(cache) is not DynamicCache or any(
        type(one) is not DynamicLayer for one in cache.layers
    ):
        return False
    shows = mask is None or mask.shape == (len(x_BTD), 1 + cache.get_seq_length())
    return shows and _is_plain(decoder, x_BTD)


def _is_plain(decoder: Any, x_BTD: Tensor) -> bool:  # noqa: ANN401 - any decoder
    """Return whether a decoder does what LLaMA's does, with weights that lie where x does."""
    if type(decoder) is not LlamaModel or decoder.training:
        return False
    how = decoder.config._attn_implementation  # noqa: SLF001 - it has no public name
    if how not in _ATTENTIONS or any(type(one) is not LlamaDecoderLayer for one in decoder.layers):
        return False
    norms = [decoder.norm, *(norm for layer in decoder.layers for norm in _norms(layer))]
    parts: list[tuple[nn.Module, type]] = [
        (decoder, LlamaModel),
        *((norm, RMSNorm) for norm in norms),
    ]
    for layer in decoder.layers:
        parts += [(layer, LlamaDecoderLayer), (layer.self_attn, LlamaAttention)]
    weights = [norm.weight for norm in norms]
    alike = all(one.device == x_BTD.device and one.dtype == x_BTD.dtype for one in weights)
    return alike and all(_is_bare(*part) for part in parts)


def is_small(x_BTD: Tensor) -> bool:
    """Return whether this is one position of few sequences, without gradients, on this route."""
    few = x_BTD.shape[1] == 1 and len(x_BTD) <= FEW_TOKENS and not torch.is_grad_enabled()
    here = x_BTD.device.type == "cpu" and takes(x_BTD.dtype)
    return few and here and routes.current().elementwise == "native"


def _matters(asked: Mapping[str, Any]) -> bool:
    return any(
        value is not None and value is not False
        for name, value in asked.items()
        if name != "return_dict"
    )


def _is_bare(module: Any, kind: type[nn.Module]) -> bool:  # noqa: ANN401 - any module
    """Return whether a module does what its class does: no hook, nothing put in its place."""
    held = module.__dict__  # hooks have no public getter
    hooked = held["_forward_hooks"] or held["_forward_pre_hooks"]
    return type(module) is kind and not hooked and not {"_hf_hook", "forward"} & held.keys()


def _norms(layer: Any) -> tuple[nn.Module, nn.Module]:  # noqa: ANN401 - LlamaDecoderLayer
    return layer.input_layernorm, layer.post_attention_layernorm


def step(
    decoder: Any,  # noqa: ANN401 - LlamaModel, whose parts are untyped
    x_B1D: Tensor,
    mask: Tensor | None,
    position_ids: Tensor | None,
    cache: DynamicCache,
) -> Tensor:
    """Run all layers on one new position; the cache grows by it. Returns (B, 1, D)."""
    built = native()
    assert built is not None, "a route was chosen that this machine does not have"
    before = cache.get_seq_length()
    if position_ids is None:
        position_ids = torch.full((1, 1), before, device=x_B1D.device)
    shape = (len(x_B1D), before + 1)
    shown = x_B1D.new_ones(shape, dtype=torch.bool) if mask is None else mask.bool().contiguous()
    turn = [
        one.expand(len(x_B1D), -1, -1).contiguous()
        for one in decoder.rotary_emb(x_B1D, position_ids)
    ]
    x_BD = x_B1D[:, 0].contiguous()
    for layer in decoder.layers:
        here = _norm(built, layer.input_layernorm, x_BD)
        x_BD = x_BD + _attend(built, layer.self_attn, here, shown, turn, cache)
        here = _norm(built, layer.post_attention_layernorm, x_BD)
        x_BD = x_BD + _feed_forward(layer.mlp, here)
    return _norm(built, decoder.norm, x_BD)[:, None]


def linear(module: Any, x_BD: Tensor) -> Tensor:  # noqa: ANN401 - or what wraps one
    """Return what a linear map returns for a few tokens."""
    built = native()
    if built is None or not _is_bare(module, nn.Linear) or not _fits(module, x_BD.dtype):
        found: Tensor = module(x_BD)
        return found
    weight = module.weight
    x, out = x_BD.contiguous(), x_BD.new_empty(len(x_BD), len(weight))
    built.call("linear", x.dtype, (x, weight, out), (len(x), *weight.shape), threads())
    return out


def _fits(module: Any, dtype: torch.dtype) -> bool:  # noqa: ANN401 - a linear map
    weight = module.weight
    return module.bias is None and weight.dtype == dtype and weight.is_contiguous()


def _norm(built: Native, module: Any, x_BD: Tensor) -> Tensor:  # noqa: ANN401
    out, epsilon = torch.empty_like(x_BD), ctypes.c_float(module.variance_epsilon)
    built.call("rms_norm", x_BD.dtype, (x_BD, module.weight, out), x_BD.shape, epsilon)
    return out


def _attend(  # noqa: PLR0913 - what attention reads
    built: Native,
    attention: Any,  # noqa: ANN401 - LlamaAttention
    x_BD: Tensor,
    shown_BS: Tensor,
    turn: list[Tensor],
    cache: DynamicCache,
) -> Tensor:
    size, dtype = attention.head_dim, x_BD.dtype
    parts = [linear(one, x_BD) for one in (attention.q_proj, attention.k_proj, attention.v_proj)]
    q_Bhd, k_Bkd, v_Bkd = (one.to(dtype).view(len(x_BD), -1, size) for one in parts)
    for one in (q_Bhd, k_Bkd):
        built.call("rotate", dtype, (one, *turn), one.shape)
    keys, values = cache.update(k_Bkd[:, :, None], v_Bkd[:, :, None], attention.layer_idx)
    keys, values = keys.contiguous(), values.contiguous()
    sizes = (*q_Bhd.shape[:2], *keys.shape[1:])
    room = x_BD.new_empty(sizes[0] * sizes[1] * (sizes[3] + size), dtype=torch.float32)
    out = torch.empty_like(q_Bhd)
    scale = ctypes.c_float(attention.scaling)
    built.call("attend", dtype, (q_Bhd, keys, values, shown_BS, room, out), sizes, scale, threads())
    return linear(attention.o_proj, out.flatten(1))


def _feed_forward(mlp: Any, x_BD: Tensor) -> Tensor:  # noqa: ANN401 - any feed-forward
    if not _is_bare(mlp, LlamaMLP) or mlp.config.hidden_act != "silu":
        found: Tensor = mlp(x_BD[:, None])[:, 0]
        return found
    return linear(mlp.down_proj, F.silu(linear(mlp.gate_proj, x_BD)) * linear(mlp.up_proj, x_BD))
