"""A network by its sizes: what arithmetic about memory and time has to know of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from uni_moe.model.config import UniMoeConfig
from uni_moe.records import MediaRef

_LOW_RANK = ("lora.attention", "lora.feed_forward", "lora.experts")


@dataclass(frozen=True)
class Decoder:
    """The language model: `layers` of `width`, feed-forwards of `inner`.

    `sparse` names the layers that are mixtures of `experts`, of which a position visits `top_k`.
    """

    width: int
    inner: int
    layers: int
    heads: int
    vocabulary: int
    sparse: frozenset[int] = frozenset()
    experts: int = 0
    top_k: int = 0


@dataclass(frozen=True)
class Reader:
    """A connector and what it is fed: `rows` of `reads` numbers for one medium.

    A picture's is two linear maps; those of sound are transformers of `layers` and `width` whose
    `queries` look at the rows, in every layer or in every second one. `standardized` says that rows
    are made alike first.
    """

    kind: str  # image, speech, or audio
    reads: int
    rows: int
    queries: int = 0
    layers: int = 0
    width: int = 0
    heads: int = 0
    inner: int = 0
    standardized: bool = False


@dataclass(frozen=True)
class Network:
    """A network and what of it learns; `adapted` names the layers whose feed-forwards have LoRA."""

    decoder: Decoder
    readers: Mapping[str, Reader]
    learns: frozenset[str]
    rank: int = 0
    adapted: frozenset[int] = frozenset()

    def has(self, part: str) -> bool:
        """Return whether a part learns."""
        return part in self.learns

    @property
    def embeddings_bear(self) -> bool:
        """Return whether something learns that the decoder reads: then all layers carry back."""
        return any(
            part == "language" or part.startswith(("connector.", "projection."))
            for part in self.learns
        )

    @property
    def first(self) -> int:
        """The first layer in which something learns; as many as there are, where none does."""
        if self.embeddings_bear or self.has("lora.attention"):
            return 0
        found = set(self.adapted if self.has("lora.feed_forward") else ())
        if self.learns & {"lora.experts", "router", "modality_adapters"}:
            found |= self.decoder.sparse
        return min(found, default=self.decoder.layers)


@dataclass(frozen=True)
class Weights:
    """How many numbers a network has, by what becomes of them.

    `towers` are frozen encoders, which no engine spreads; `experts` are numbers of packed experts,
    `learning_experts` those of their adapters; each mixture has `per_mixture` experts. `by_layer`
    counts what learns in each layer of the decoder, `head` in its head, `largest` in the largest
    tensor.
    """

    frozen: int
    trained: int
    towers: int = 0
    experts: int = 0
    learning_experts: int = 0
    by_layer: tuple[int, ...] = ()
    head: int = 0
    largest: int = 0
    per_mixture: int = 0


def network_of(
    config: UniMoeConfig, learns: Collection[str], *, rank: int = 0, adapted: Collection[int] = ()
) -> Network:
    """Return the sizes of a network.

    Args:
        config: its configuration.
        learns: the parts that learn.
        rank: of the low-rank adapters, where there are some.
        adapted: layers whose dense feed-forwards get adapters.
    """
    text = config.text_config
    decoder = Decoder(
        width=text.hidden_size,
        inner=text.intermediate_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        vocabulary=text.vocab_size,
        sparse=frozenset(config.sparse_layers),
        experts=config.num_experts if config.sparse_layers else 0,
        top_k=config.experts_per_token if config.sparse_layers else 0,
    )
    parts = frozenset(learns)
    return Network(
        decoder,
        {reader.kind: reader for reader in _readers(config)},
        parts,
        rank if parts & set(_LOW_RANK) else 0,
        frozenset(adapted) if "lora.feed_forward" in parts else frozenset(),
    )


def feature_numbers(ref: MediaRef, reader: Reader, config: UniMoeConfig) -> int:
    """Return how many numbers an encoder returns of a medium: frame by frame, or by windows."""
    times = 1
    if ref.kind == "video":
        times = config.video_frames
    elif ref.kind != "image" and ref.duration_s is not None:
        shape = getattr(config, f"{reader.kind}_connector") or {}
        times = max(1, ceil(ref.duration_s / shape.get("window_s", 30)))
    return times * reader.rows * reader.reads


def _readers(config: UniMoeConfig) -> list[Reader]:
    found, alike = [], config.standardize_features
    if config.vision_config is not None:
        wide, rows = config.vision_config.hidden_size, config.image_rows
        found.append(Reader("image", wide, rows, standardized=alike))
    if config.speech_config is not None:
        ears, shape = config.speech_config, config.speech_connector
        rows = ears.max_source_positions
        found.append(_of_sound("speech", ears.d_model, rows, shape, standardized=alike))
    if config.audio_config is not None:
        ears, shape = config.audio_config, config.audio_connector
        rows = _patches(ears, shape)
        found.append(_of_sound("audio", ears.hidden_size, rows, shape, standardized=alike))
    return found


def _of_sound(
    kind: str,
    reads: int,
    rows: int,
    shape: Any,  # noqa: ANN401 - a mapping of numbers
    *,
    standardized: bool,
) -> Reader:
    return Reader(
        kind,
        reads,
        rows,
        queries=shape["query_tokens"],
        layers=shape["layers"],
        width=shape["width"],
        heads=shape["heads"],
        inner=shape["intermediate_size"],
        standardized=standardized,
    )


def _patches(tower: Any, shape: Any) -> int:  # noqa: ANN401 - a BeatsConfig, a mapping
    """Return the rows of one window of sound: 25 ms frames every 10 ms, cut in square patches."""
    frames = 100 * int(shape.get("window_s", 30)) - 2
    size = tower.input_patch_size
    return (frames // size) * (tower.mel_bins // size)
