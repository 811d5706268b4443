"""Which experts the tokens of one answer visited.

The text that generation left is read once more, prompt and answer in one pass: each position shows
what its own token visits. A choice between two experts that are as good as equal may fall the other
way than it did while the text grew, by rounding.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from uni_moe.evaluate.ask import Opened, Said
from uni_moe.model.config import KINDS, SLOT_KINDS
from uni_moe.model.router import Routing


@dataclass(frozen=True)
class Visits:
    """Layers in order; `experts` and `shares` hold, per answer token and layer, the K best.

    `prompt` holds kind -> per layer each expert's share of the visits of that kind's positions;
    `positions` how many positions a kind takes.
    """

    layers: list[int]
    experts_each: int
    tokens: list[str]
    experts: list[list[list[int]]]
    shares: list[list[list[float]]]
    prompt: dict[str, list[list[float]]]
    positions: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return them as a JSON object."""
        return asdict(self)


@torch.no_grad()
def visits(opened: Opened, said: Said) -> Visits:
    """Read an answer once more and tell what each of its tokens visited."""
    model, tokenizer = opened.model, opened.processor.tokenizer
    ids = said.ids[: model.config.text_config.max_position_embeddings]
    given: dict[str, Any] = {"features": said.features} if said.features else {}
    routing = model(ids[None], **given, output_routing=True, logits_to_keep=1).routing
    by_layer = [routing[layer] for layer in sorted(routing)]
    start = said.prompt_tokens
    kinds = _kinds(opened, ids[:start])
    return Visits(
        layers=sorted(routing),
        experts_each=int(model.config.experts_per_token),
        tokens=[tokenizer.decode([int(token)]) for token in ids[start:]],
        experts=_by_token([one.expert_TK[start:] for one in by_layer]),
        shares=_by_token([one.weight_TK[start:] for one in by_layer]),
        prompt={
            kind: [_shares(one, start, here) for one in by_layer] for kind, here in kinds.items()
        },
        positions={kind: int(here.sum()) for kind, here in kinds.items()},
    )


def _kinds(opened: Opened, ids: Tensor) -> dict[str, Tensor]:
    """Return kind -> where it stands in a prompt, of those that do."""
    slots = {kind: ids == opened.model.config.slot_id(kind) for kind in SLOT_KINDS}
    slots["text"] = ~torch.stack(list(slots.values())).any(0)
    return {kind: slots[kind] for kind in KINDS if slots[kind].any()}


def _by_token(layers: list[Tensor]) -> list[list[list[Any]]]:
    """Return per token, per layer, the K values; no layer gives each token an empty list."""
    if not layers:
        return []
    return [
        [[_short(x) for x in row] for row in token] for token in torch.stack(layers, 1).tolist()
    ]


def _shares(routing: Routing, start: int, here: Tensor) -> list[float]:
    load = torch.bincount(
        routing.expert_TK[:start][here].flatten(), minlength=routing.logits_TE.shape[1]
    )
    return [_short(share) for share in (load / load.sum()).tolist()]


def _short(value: float) -> float:
    return round(value, 4)
