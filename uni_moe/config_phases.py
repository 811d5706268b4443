"""Sections of params.yaml: what a phase learns, from what and how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# Parts of the network that a phase may train; uni_moe.model.parts says which parameters they are.
Part = Literal[
    "connector.image",
    "connector.audio",
    "connector.speech",
    "projection.audio",
    "projection.speech",
    "router",
    "modality_adapters",
    "lora.attention",
    "lora.feed_forward",
    "lora.experts",
    "language",
]


@dataclass(frozen=True)
class Lora:
    """Size of low-rank adapters."""

    rank: int
    alpha: int
    dropout: float


@dataclass(frozen=True)
class Packing:
    """How the conversations of a step lie in rows, and what happens to one that is too long.

    A row takes `row_positions` positions at most, several conversations one behind the other; null
    gives each a row of its own. `rows` of them are computed at once; null takes all of a step. What
    is longer than a row, or than the language model reads, is refused, or loses its end.
    """

    row_positions: int | None
    rows: int | None
    on_too_long: Literal["refuse", "truncate"]


@dataclass(frozen=True)
class Phase:
    """One training phase: what learns, from what, how long.

    `learns` names parts of the model. `blend` weighs modalities against each
    other; a modality without weight is not drawn. `sources` says how often a sample of a source is
    drawn beside one of another of its modality; without a weight it is 1. `tasks` says which
    conversations are drawn: `caption` (captions and transcripts), `answer` (questions), or both.
    A step draws `batch_size` conversations, or as many as have `batch_positions` positions
    together. Without `packing` a step is computed at once, each conversation in a row of its own.
    """

    learns: tuple[Part, ...]
    blend: Mapping[str, float]
    tasks: tuple[Literal["caption", "answer"], ...]
    steps: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    clip_norm: float
    save_every_steps: int
    lora: Lora | None
    batch_size: int | None = None
    batch_positions: int | None = None
    sources: Mapping[str, float] = field(default_factory=dict)
    packing: Packing | None = None


@dataclass(frozen=True)
class RoutingLosses:
    """What is added to the loss of the next token, each off at 0; see uni_moe.model.losses.

    They are means over a whole step, however it is cut. The balance of a step in several parts
    takes one more run forward.
    """

    balance: float  # all experts are visited alike
    target: float  # a modality's tokens go to the experts wished for it
    divergence: float  # modalities of one sample are routed differently
    expert_targets: Mapping[str, tuple[int, ...]]  # modality -> slots wished for its tokens


@dataclass(frozen=True, kw_only=True)
class TunePhase(Phase):
    """The phase that has a mixture to tune.

    `start` is the id of a registered model that it goes on from, with new adapters and a new
    optimizer; without one it begins at the assembled mixture.
    """

    losses: RoutingLosses
    start: str | None = None
