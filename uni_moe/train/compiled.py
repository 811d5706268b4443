"""Products that oneDNN compiles and keeps: one for each shape and layout, a bounded number. Pure.

A step of other lengths needs products of its own, so a process grows over its first steps. Which
shapes a layer multiplies is counted from its forward and its way back, and was held against what
oneDNN says with ONEDNN_VERBOSE=profile_create.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp

from uni_moe.train.sizes import Network, Reader

KEPT = 1024  # products, by oneDNN's own default
# Of code and tables; what stays unused between them comes on top where old ones made room for as
# many new ones (measured with torch 2.13 on AVX-512).
EACH_BYTES, UNUSED_BYTES = 670_000, 180_000


@dataclass(frozen=True)
class Shapes:
    """How many different sizes some steps' micro-batches have.

    `positions` and `labels` count different lengths, `groups` different (count, length) of what
    attends together, `media` different numbers of each encoder's media. `visited` is the most
    positions of a micro-batch, `batches` counts all.
    """

    positions: int = 0
    labels: int = 0
    groups: int = 0
    media: Mapping[str, int] = field(default_factory=dict)
    visited: int = 0
    batches: int = 0


_GROUPS = 4  # in which the conversations of a modality's validation attend, about


def compiled_bytes(
    network: Network, shapes: Shapes, *, validated: int, plain: bool, pad_rows: int
) -> int:
    """Return the bytes of the products that a training compiles.

    Args:
        network: its sizes, and what learns.
        shapes: the sizes of its micro-batches.
        validated: how many modalities are validated, forward alone.
        plain: whether attention is plain products.
        pad_rows: what each expert's rows are rounded up to; on a CPU every way runs them singly.
    """
    count = (
        shapes.positions * _by_position(network)
        + shapes.labels * (2 + network.has("language"))
        + shapes.groups * 6 * plain  # forward two, each with two on the way back
        + 4 * _different(network, shapes, shapes.batches, pad_rows)
        + sum(
            shapes.media.get(reader.kind, 0) * _by_media(network, reader)
            for reader in network.readers.values()
        )
    )
    forward = _by_position(network) // 3 + 2 * _GROUPS * plain
    count += validated * forward + 2 * _different(network, shapes, validated, pad_rows)
    followed = min(KEPT, max(0, count - KEPT))
    return min(KEPT, count) * EACH_BYTES + followed * UNUSED_BYTES


def _by_position(network: Network) -> int:
    """Products of one length: maps D to D, D to I, I to D, forward and back, and what learns."""
    dense = len(network.decoder.sparse) < network.decoder.layers
    square = 2 + 2 * network.has("lora.attention") + network.has("language")
    wide = (4 + 2 * network.has("language")) * dense
    low = 2 * network.has("lora.attention")
    low += 8 * network.has("lora.feed_forward")
    return square + wide + low + 3 * bool(network.decoder.sparse)


def _different(network: Network, shapes: Shapes, batches: int, pad_rows: int) -> int:
    """Return how many different numbers of rows, filled up, experts get in so many micro-batches.

    Every expert of every layer throws dice for one of the numbers that are likely; some fall twice.
    """
    decoder = network.decoder
    thrown = batches * len(decoder.sparse) * decoder.experts
    likely = shapes.visited * decoder.top_k / (2 * pad_rows)
    return round(likely * (1 - exp(-thrown / likely))) if likely else 0


def _by_media(network: Network, reader: Reader) -> int:
    """Products of a connector for one number of media; one that does not learn runs forward."""
    learns = bool({f"connector.{reader.kind}", f"projection.{reader.kind}"} & network.learns)
    return (2 if reader.kind == "image" else 4) * (3 if learns else 1)
