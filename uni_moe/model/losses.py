"""Losses beside the next token's: balance, experts wished for a modality, different routing by it.

All are computed from the router's logits without noise, over positions that are not padding, summed
over layers. Source: the 8-expert variant, which computes them from noised logits (a defect that is
not repeated) and sums over samples; here samples are averaged, so that the batch size is no factor.

They are means over a batch. Where a batch is a share of something larger, `Whole` says what that
holds, and each loss is the batch's share of the whole's: shares of all batches add up to it.

Shapes
    T  tokens that are not padding    E  experts    M  modalities    B  samples
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from uni_moe.model.config import KINDS, UniMoeConfig
from uni_moe.model.router import Routing

NAMES = ("balance", "target", "divergence")
# Pairs whose routing should differ: KL(second || first). Published with one kind of sound.
PAIRS = (
    ("image", "audio"),
    ("image", "speech"),
    ("image", "text"),
    ("audio", "text"),
    ("speech", "text"),
    ("audio", "video"),
    ("speech", "video"),
    ("video", "text"),
)


@dataclass(frozen=True)
class Whole:
    """What batches hold together: samples, and how many tokens each expert comes first for.

    The counts by layer, (E,), are needed for the balance alone: it is a product of two means.
    """

    samples: int
    first_E: Mapping[int, Tensor] = field(default_factory=dict)


def weights_of(config: UniMoeConfig) -> dict[str, float]:
    """Return the losses that a configuration turns on, each with its weight."""
    found = {name: getattr(config, f"{name}_coefficient") for name in NAMES}
    return {name: weight for name, weight in found.items() if weight}


def beside(
    config: UniMoeConfig,
    routing: Mapping[int, Routing],
    kind_T: Tensor,
    row_T: Tensor,
    whole: Whole | None = None,
) -> dict[str, Tensor]:
    """Return the losses that a configuration weighs, by name, summed over layers.

    Without a token there is none.

    Args:
        config: its coefficients say which are on.
        routing: layer -> the decision for every token.
        kind_T: what each token is, as an index of KINDS.
        row_T: the sample it belongs to.
        whole: what the batch is a share of; nothing larger without it.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in weights_of(config)}
    if not len(row_T):
        return {}
    samples = whole.samples if whole is not None else _rows(row_T)
    for layer, one in routing.items():
        if "balance" in found:
            first_E = whole.first_E[layer] if whole is not None else first(one)
            found["balance"].append(balance(one, first_E))
        if "target" in found:
            wished = config.expert_targets
            loss = off_target(one, kind_T, row_T, kinds=KINDS, wished=wished)
            found["target"].append(loss / samples)
        if "divergence" in found:
            found["divergence"].append(alike(one, kind_T, row_T, kinds=KINDS) / samples)
    return {name: torch.stack(each).sum() for name, each in found.items() if each}


def first(routing: Routing) -> Tensor:
    """Count the tokens that each expert comes first for, (E,)."""
    return torch.bincount(routing.expert_TK[:, 0], minlength=routing.logits_TE.shape[1])


def balance(routing: Routing, first_E: Tensor) -> Tensor:
    """Return E * sum_e (mean share of e) * (share of tokens e comes first for); even routing is 1.

    The means are over the tokens that first_E counts, of which these may be some.
    """
    share_E = routing.logits_TE.float().softmax(-1).sum(0)
    tokens = first_E.sum()
    return len(first_E) * (share_E / tokens * (first_E / tokens).to(share_E.dtype)).sum()


def off_target(
    routing: Routing,
    kind_T: Tensor,
    row_T: Tensor,
    *,
    kinds: Sequence[str],
    wished: Mapping[str, Sequence[int]],
) -> Tensor:
    """Return how far shares lie from the experts wished for a token's modality: a sum over samples.

    Each has the mean over its tokens of mean_e |share - wish|, tokens of other modalities 0.
    """
    share_TE = routing.logits_TE.float().softmax(-1)
    rows = _rows(row_T)
    tokens_B = torch.bincount(row_T, minlength=rows).clamp(min=1)
    total_B = share_TE.new_zeros(rows)
    for kind, experts in wished.items():
        wish_E = share_TE.new_zeros(share_TE.shape[1])
        wish_E[list(experts)] = 1.0
        own_T = kind_T == kinds.index(kind)
        distance_T = (share_TE[own_T] - wish_E).abs().mean(-1)
        total_B = total_B.index_add(0, row_T[own_T], distance_T)
    return (total_B / tokens_B).sum()


def alike(routing: Routing, kind_T: Tensor, row_T: Tensor, *, kinds: Sequence[str]) -> Tensor:
    """Return how alike the modalities of a sample are routed, summed over samples.

    Per sample: 1 - KL / E, a mean over pairs.
    """
    share_TE = routing.logits_TE.float().softmax(-1)
    experts, rows = share_TE.shape[1], _rows(row_T)
    place_T = row_T * len(kinds) + kind_T
    count = torch.bincount(place_T, minlength=rows * len(kinds))
    sums = share_TE.new_zeros(rows * len(kinds), experts).index_add(0, place_T, share_TE)
    mean_BME = (sums / count.clamp(min=1)[:, None]).view(rows, len(kinds), experts)
    there_BM = (count > 0).view(rows, len(kinds))
    log_BME = mean_BME.log_softmax(-1)
    total_B, pairs_B = share_TE.new_zeros(rows), share_TE.new_zeros(rows)
    for first, second in PAIRS:
        if first in kinds and second in kinds:
            a, b = kinds.index(first), kinds.index(second)
            kl_B = (log_BME[:, b].exp() * (log_BME[:, b] - log_BME[:, a])).sum(-1)
            both_B = there_BM[:, a] & there_BM[:, b]
            total_B = total_B + both_B * (1 - kl_B / experts)
            pairs_B = pairs_B + both_B
    return (total_B / pairs_B.clamp(min=1)).sum()


def _rows(row_T: Tensor) -> int:
    return int(row_T.max()) + 1 if len(row_T) else 1
