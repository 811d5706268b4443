"""Packed rows: several conversations one behind the other, none of which sees another.

A mask over a long row would compute what it then hides. Here the segments of a row are laid side by
side, filled on the right, and attend causally without a mask: what is real never looks at the
filling behind it. Segments of like lengths go together, so that little is filled. All other layers
see the row as it is.

Shapes
    B  rows    T  positions of a row    P  B * T, row after row    S  segments of a group
    L  positions of the longest segment of a group    R  places of all groups, filling included
    h  heads    d  size of a head    D  model width
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from uni_moe.errors import ConfigError

ROUTE = "segmented_sdpa"  # transformers' sdpa, and segments where there are some
FILLING = -1  # in segment ids: what stands there is no conversation
# A further group pays where it saves this many pairs of positions (measured on two cores).
_PAYS = 64 * 64


@dataclass(frozen=True)
class Sequences:
    """Which sequence each position of a batch belongs to."""

    row_BT: Tensor
    keep_BT: Tensor  # False where there is filling
    last_BT: Tensor  # True where no position of the same sequence follows
    count: int
    longest: int


@dataclass(frozen=True)
class Segments:
    """Where the segments of packed rows lie. A run of filling counts as a segment of its own."""

    position_BT: Tensor  # counted from the start of each segment
    spread_R: Tensor  # for every place of the groups, the position that goes there
    back_P: Tensor  # for every position, its place in the groups
    groups: tuple[tuple[int, int], ...]  # (S, L) of each


def by_row(kind_BT: Tensor, mask: Tensor | None) -> Sequences:
    """Return the sequences of rows that hold one each; the mask may reach back into a cache."""
    rows, length = kind_BT.shape
    row_BT = torch.arange(rows, device=kind_BT.device)[:, None].expand(rows, length)
    keep_BT = torch.ones_like(row_BT, dtype=torch.bool)
    if mask is not None:
        keep_BT = mask[:, -length:].bool()
    return Sequences(row_BT, keep_BT, _last(row_BT), rows, length)


def lay_out(segment_BT: Tensor) -> tuple[Sequences, Segments]:
    """Read the segments off their ids: a run of one id in a row is a segment."""
    place, ids_BT = segment_BT.device, segment_BT.cpu()
    last_P = _last(ids_BT).flatten()
    end = last_P.nonzero()[:, 0] + 1
    length = torch.diff(end, prepend=torch.zeros(1, dtype=end.dtype))
    start = end - length
    position_P = torch.arange(len(last_P)) - start.repeat_interleave(length)
    order = length.argsort(descending=True, stable=True)
    spread, back_P, groups, used = [], torch.empty_like(position_P), [], 0
    for chosen in order.split(group_sizes(length[order].tolist())):
        longest = int(length[chosen[0]])
        step_SL = torch.arange(longest).expand(len(chosen), -1)
        real_SL = step_SL < length[chosen][:, None]
        from_SL = start[chosen][:, None] + step_SL.where(real_SL, 0)
        back_P[from_SL[real_SL]] = used + real_SL.flatten().nonzero()[:, 0]
        spread.append(from_SL.flatten())
        groups.append((len(chosen), longest))
        used += from_SL.numel()
    laid_out = Segments(
        position_P.view_as(ids_BT).to(place),
        torch.cat(spread).to(place),
        back_P.to(place),
        tuple(groups),
    )
    keep_BT, count = segment_BT != FILLING, int(ids_BT.max()) + 1
    real = length[ids_BT.flatten()[start] != FILLING]
    longest = int(real.max()) if len(real) else 0  # filling is nobody's sequence
    return Sequences(segment_BT, keep_BT, _last(segment_BT), count, longest), laid_out


def _last(row_BT: Tensor) -> Tensor:
    """Return True where the next position of the row belongs to another sequence, or is none."""
    last_BT = torch.ones_like(row_BT, dtype=torch.bool)
    last_BT[:, :-1] = row_BT[:, 1:] != row_BT[:, :-1]
    return last_BT


def group_sizes(lengths: list[int]) -> list[int]:
    """Return how many segments each group takes, of lengths that fall."""
    sizes: list[int] = []
    longest = wasted = 0
    for length in lengths:
        wasted += longest**2 - length**2
        if not sizes or wasted > _PAYS:
            sizes.append(0)
            longest, wasted = length, 0
        sizes[-1] += 1
    return sizes


def groups_of(lengths: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return (S, L) of each group that segments of these lengths are laid out in."""
    falling, groups, used = sorted(lengths, reverse=True), [], 0
    for count in group_sizes(falling):
        groups.append((count, falling[used]))
        used += count
    return tuple(groups)


def take_route(config: Any) -> None:  # noqa: ANN401 - LlamaConfig
    """Let a decoder that attends by transformers' sdpa know segments too."""
    if config._attn_implementation == "sdpa":  # noqa: SLF001 - transformers has no other name
        config._attn_implementation = ROUTE  # noqa: SLF001


def route_of(
    config: Any,  # noqa: ANN401 - LlamaConfig
    segment_BT: Tensor,
    laid_out: Segments,
    dtype: torch.dtype,
) -> tuple[Tensor, dict[str, Any]]:
    """Return how the decoder is told of segments: a mask, and further arguments.

    Attention of transformers' own (`eager`, or `sdpa` that was set by name) gets a mask over whole
    rows, (B, 1, T, T).

    Raises:
        ConfigError: an attention is set that takes no such mask.
    """
    way = config._attn_implementation  # noqa: SLF001 - transformers has no other name
    if way == ROUTE:  # a mask of four dimensions is handed on as it is, and not read
        return torch.ones(1, 1, 1, 1, device=segment_BT.device), {"segments": laid_out}
    if way not in ("sdpa", "eager"):
        raise ConfigError(
            f"Packed rows cannot be read by the attention {way!r}.",
            cause="it takes no mask that keeps the conversations of a row apart.",
            remedy="load the model without `attn_implementation`, or train without `packing`.",
        )
    return whole_mask(segment_BT, dtype), {}


def whole_mask(segment_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what segments say as a mask to be added, (B, 1, T, T): 0 to see, else very low."""
    length = segment_BT.shape[1]
    causal_TT = torch.ones(length, length, dtype=torch.bool, device=segment_BT.device).tril()
    seen_BTT = (segment_BT[:, :, None] == segment_BT[:, None, :]) & causal_TT
    mask = torch.zeros(seen_BTT.shape, dtype=dtype, device=segment_BT.device)
    return mask.masked_fill(~seen_BTT, torch.finfo(dtype).min)[:, None]


def attend(  # noqa: PLR0913 - transformers' convention
    module: Any,  # noqa: ANN401 - an attention layer of transformers
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    segments: Segments | None = None,
    **asked: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    """Attend as transformers' sdpa does, within segments where there are some.

    Shapes:
        query (B, h, T, d), key and value with as many heads or fewer -> (B, T, h, d).
    """
    if segments is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **asked
        )
        return plain
    place = query.device  # layers may be spread over devices
    spread_R, back_P = segments.spread_R.to(place), segments.back_P.to(place)
    parts = []
    for one in (query, key, value):
        flat_Phd = one.transpose(1, 2).flatten(0, 1)
        moved: Tensor = _Spread.apply(flat_Phd, spread_R, back_P)  # type: ignore[no-untyped-call]
        parts.append(moved.split([count * length for count, length in segments.groups]))
    done = []
    for (count, length), *three in zip(segments.groups, *parts, strict=True):
        laid = [one.view(count, length, *one.shape[1:]).transpose(1, 2) for one in three]
        out_SLhd, _ = sdpa_attention_forward(module, *laid, None, **asked)
        done.append(out_SLhd.flatten(0, 1))
    out_Phd: Tensor = _Back.apply(torch.cat(done), back_P)  # type: ignore[no-untyped-call]
    return out_Phd.view(query.shape[0], query.shape[2], *out_Phd.shape[1:]), None


class _Spread(torch.autograd.Function):
    """Positions to places. Every position stands in one real place, so gradients are gathered."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, spread_R: Tensor, back_P: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(back_P)
        return x.index_select(0, spread_R)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (back_P,) = ctx.saved_tensors
        return grad.index_select(0, back_P), None, None


class _Back(torch.autograd.Function):
    """Places to positions; the filling has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, back_P: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(back_P)
        ctx.places = len(x)
        return x.index_select(0, back_P)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        (back_P,) = ctx.saved_tensors
        spread = grad.new_zeros(ctx.places, *grad.shape[1:])
        return spread.index_copy_(0, back_P, grad), None


AttentionInterface.register(ROUTE, attend)
AttentionMaskInterface.register(ROUTE, sdpa_mask)
