"""Losses beside the next token's: balance, experts wished for a modality, different routing by it.

All are computed from the router's logits without noise, over positions that are not padding, summed
over layers. Source: the 8-expert variant, which computes them from noised logits (a defect that is
not repeated) and sums over samples; here samples are averaged, so that the batch size is no factor.

Shapes
    T  tokens that are not padding    E  experts    M  modalities    B  samples
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from uni_moe.model.config import KINDS, UniMoeConfig
from uni_moe.model.router import Routing

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


def beside(
    config: UniMoeConfig, routing: Mapping[int, Routing], kind_T: Tensor, row_T: Tensor
) -> dict[str, Tensor]:
    """Return the losses that a configuration weighs, by name, summed over layers.

    Without a token there is none.

    Args:
        config: its coefficients say which are on.
        routing: layer -> the decision for every token.
        kind_T: what each token is, as an index of KINDS.
        row_T: the sample it belongs to.
    """
    found: dict[str, list[Tensor]] = {}
    for one in routing.values() if len(row_T) else ():
        if config.balance_coefficient:
            found.setdefault("balance", []).append(balance(one))
        if config.target_coefficient:
            wished = config.expert_targets
            loss = off_target(one, kind_T, row_T, kinds=KINDS, wished=wished)
            found.setdefault("target", []).append(loss)
        if config.divergence_coefficient:
            found.setdefault("divergence", []).append(alike(one, kind_T, row_T, kinds=KINDS))
    return {name: torch.stack(each).sum() for name, each in found.items()}


def balance(routing: Routing) -> Tensor:
    """Return E * sum_e (mean share of e) * (tokens whose first choice is e); even routing is 1."""
    share_TE = routing.logits_TE.float().softmax(-1)
    experts = share_TE.shape[1]
    first_TE = F.one_hot(routing.expert_TK[:, 0], experts).float()
    return experts * (share_TE.mean(0) * first_TE.mean(0)).sum()


def off_target(
    routing: Routing,
    kind_T: Tensor,
    row_T: Tensor,
    *,
    kinds: Sequence[str],
    wished: Mapping[str, Sequence[int]],
) -> Tensor:
    """Return how far shares lie from the experts wished for a token's modality.

    Per sample: the mean over its tokens of mean_e |share - wish|, tokens of other modalities 0.
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
    return (total_B / tokens_B).mean()


def alike(routing: Routing, kind_T: Tensor, row_T: Tensor, *, kinds: Sequence[str]) -> Tensor:
    """Return how alike the modalities of a sample are routed: 1 - KL / E, a mean over pairs."""
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
    return (total_B / pairs_B.clamp(min=1)).mean()


def _rows(row_T: Tensor) -> int:
    return int(row_T.max()) + 1 if len(row_T) else 1
