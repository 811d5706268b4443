"""What a training step keeps for its way back, and what the way back needs beside: arithmetic.

Counted from what autograd saves, tensor by tensor; a test holds what is kept to that, and
`python -m benchmarks memory` what the way back needs beside. Bytes.

Letters
    P  positions, filling included    D  model width    I  inner width    h  heads    r  LoRA's rank
    R  visits to experts, with what fills them up    E  experts    L  labels    V  vocabulary
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from uni_moe.model.backends.choose import most_grouped, way_of_experts
from uni_moe.model.backends.fused import PAD_ROWS
from uni_moe.train.sizes import Network, Reader

_FLOAT = 4  # norms, losses and shares are float32 in every precision
_LONG = 8


@dataclass(frozen=True)
class Load:
    """A micro-batch by its sizes: `rows` of `length` positions are computed at once.

    `labels` of the positions are learned from. `spans` are (count, length) of the groups in which
    packed rows attend; without them each row attends by itself. `media` counts pictures, films and
    windows of sound by kind, `frames` those of one film.
    """

    rows: int
    length: int
    labels: int
    spans: tuple[tuple[int, int], ...] = ()
    media: Mapping[str, int] = field(default_factory=dict)
    frames: int = 1

    @property
    def positions(self) -> int:
        """Positions that are computed."""
        return self.rows * self.length

    def cut(self, positions: int) -> Load:
        """Return one of at most so many positions, that bears as much of all else."""
        if positions >= self.positions:
            return self
        rows, length = max(1, positions // self.length), min(positions, self.length)
        spans = tuple((count, min(length, each)) for count, each in self.spans)
        return replace(self, rows=rows, length=length, spans=spans)

    @property
    def groups(self) -> tuple[tuple[int, int], ...]:
        """(count, length) of what attends together."""
        return self.spans or ((self.rows, self.length),)

    @property
    def pairs(self) -> int:
        """Pairs of positions that plain attention writes down, for one head."""
        return sum(count * length**2 for count, length in self.groups)


@dataclass(frozen=True)
class Way:
    """How a step is computed: bytes of a number, and the routes of attention and experts.

    `spread` counts the ranks that share the experts; the fused way rounds an expert's rows up to
    a multiple of `pad_rows`. `accelerator` says that it is computed on one. Which way the experts
    of a network really take, see `taken`.
    """

    number: int = 4
    attention: str = "plain"
    experts: str = "fused"
    checkpointing: bool = False
    spread: int = 1
    pad_rows: int = PAD_ROWS
    accelerator: bool = False

    def taken(self, network: Network, load: Load) -> Way:
        """Return how experts really run: many of them, and little work, have a way of their own."""
        decoder = network.decoder
        experts = way_of_experts(
            self.experts,
            _experts(network, self),
            load.positions * decoder.top_k,
            decoder.width,
            decoder.inner,
            on_cpu=not self.accelerator,
        )
        return replace(self, experts=experts)

    def candidates(self, network: Network, load: Load) -> list[tuple[Load, Way]]:
        """Return what may need most: the largest load, and one that has just too little work.

        An accelerator runs that by the grouped way, which keeps more of a visit than the fused one.
        """
        taken, decoder = self.taken(network, load), network.decoder
        found = [(load, taken)]
        most = most_grouped(_experts(network, self), decoder.width, decoder.inner)
        if self.accelerator and taken.experts == "fused" and decoder.sparse and most:
            smaller = load.cut(most // decoder.top_k)
            found.append((smaller, self.taken(network, smaller)))
        return found


@dataclass(frozen=True)
class Kept:
    """Bytes that a step keeps: by layer of the decoder, at its head, and in the connectors.

    `working` is what a layer's way back needs beside, `again` what it computes anew where
    activations are checkpointed, and keeps until it is done.
    """

    layers: tuple[int, ...]
    working: tuple[int, ...]
    again: tuple[int, ...]
    head: int
    logits: int
    connectors: int
    features: int

    @property
    def all(self) -> int:
        """Everything that stands when the loss is known."""
        return sum(self.layers) + self.head + self.logits + self.connectors + self.features


def kept_by(network: Network, load: Load, way: Way) -> Kept:
    """Return what a micro-batch keeps."""
    decoder, first = network.decoder, network.first
    carried = load.positions * decoder.width
    full = [
        _layer(network, load, way, index) if index >= first else 0
        for index in range(decoder.layers)
    ]
    working = [
        _working(network, load, way, index) if index >= first else 0
        for index in range(decoder.layers)
    ]
    handed_on = [carried * way.number if index >= first else 0 for index in range(decoder.layers)]
    learns = first < decoder.layers
    head = (carried + load.positions) * _FLOAT * learns
    head += load.labels * decoder.width * way.number * network.has("language")
    return Kept(
        layers=tuple(handed_on if way.checkpointing else full),
        working=tuple(working),
        again=tuple(full if way.checkpointing else [0] * decoder.layers),
        head=head,
        logits=load.labels * decoder.vocabulary * _FLOAT,
        connectors=sum(_reader(network, one, load, way) for one in network.readers.values()),
        features=sum(
            _media(reader.kind, load) * reader.rows * reader.reads * _FLOAT
            for reader in network.readers.values()
        ),
    )


def _layer(network: Network, load: Load, way: Way, index: int) -> int:
    """Bytes that a layer of the decoder keeps."""
    carried = load.positions * network.decoder.width
    starts = index == network.first and not network.embeddings_bear
    in_attention = not (starts and not network.has("lora.attention"))
    norms = 2 - starts if in_attention else 0
    kept = norms * (carried + load.positions) * _FLOAT
    if network.has("language"):
        kept += 2 * carried * way.number
    if in_attention:
        kept += _attention(network, load, way)
    if index in network.decoder.sparse:
        return kept + _mixture(network, load, way)
    return kept + _feed_forward(network, load, way, index)


def _attention(network: Network, load: Load, way: Way) -> int:
    """Queries, keys, values; what they were made of, where that learns; and how they met."""
    decoder, positions = network.decoder, load.positions
    carried = positions * decoder.width
    learns = network.has("language") or network.has("lora.attention")
    if way.attention == "plain":  # its queries, keys and weights are float32 in every precision
        met = (3 * carried + load.pairs * decoder.heads) * _FLOAT
        came_out = carried * way.number * learns
    else:
        met = 4 * carried * way.number + positions * decoder.heads * _FLOAT
        came_out = carried * way.number * (learns and bool(load.spans))
    low = 4 * positions * network.rank * network.has("lora.attention")
    return met + came_out + (carried * learns + low) * way.number


def _feed_forward(network: Network, load: Load, way: Way, index: int) -> int:
    """Gate, its SiLU, and up; what was read and written, where weights or adapters learn."""
    decoder, positions = network.decoder, load.positions
    adapted = index in network.adapted
    numbers = 3 * positions * decoder.inner
    if adapted or network.has("language"):
        numbers += positions * (decoder.width + decoder.inner)
    if adapted:
        numbers += 3 * positions * network.rank
    return numbers * way.number


def visits(network: Network, positions: int, way: Way) -> int:
    """Rows that experts compute; the fused way fills each expert's up, by half a step on average.

    Experts that are spread get as many visits from other ranks as leave for them, on average.
    """
    decoder = network.decoder
    filled = _experts(network, way) * way.pad_rows // 2 if way.experts == "fused" else 0
    return positions * decoder.top_k + filled


def _experts(network: Network, way: Way) -> int:
    return -(-network.decoder.experts // way.spread)


def _mixture(network: Network, load: Load, way: Way) -> int:
    """The router's input and choice, and what the visits keep, by the way experts run."""
    decoder, positions = network.decoder, load.positions
    rows, rank = visits(network, positions, way), network.rank
    learns = network.has("lora.experts")
    routed = positions * decoder.width * way.number
    routed += positions * decoder.top_k * (_LONG + _FLOAT)
    if way.spread > 1:  # what comes back, and for the fused way what came
        sent = positions * decoder.top_k * decoder.width * way.number
        routed += sent * (2 if way.experts == "fused" else 1)
    up = _experts(network, way) * (2 * decoder.inner + decoder.width) * rank
    down = _experts(network, way) * (decoder.inner + decoder.width) * rank
    if way.experts == "fused":
        numbers = rows * 2 * decoder.inner + learns * up
        low = learns * 2 * rows * rank * _FLOAT
        return routed + numbers * way.number + low + rows * _FLOAT
    numbers = rows * (5 * decoder.inner + decoder.width)
    if way.experts == "reference":
        numbers = rows * (4 * decoder.inner + 2 * decoder.width) + learns * 4 * rows * rank
    elif learns:
        numbers += up + down + 2 * rows * rank
    return routed + numbers * way.number + rows * (3 * _LONG + way.number)


def _working(network: Network, load: Load, way: Way, index: int) -> int:
    """What a layer's way back holds beside what is kept: at its feed-forward, where most is."""
    decoder, positions = network.decoder, load.positions
    carried = 2 * positions * decoder.width * way.number
    if index not in decoder.sparse:
        learned = index in network.adapted or network.has("language")
        return carried + (3 - learned) * positions * decoder.inner * way.number
    rows = visits(network, positions, way)
    if way.experts == "grouped":  # two of its own stand before what was kept is let go
        return carried + 2 * rows * decoder.inner * way.number
    numbers = 4 * _busiest(network, rows, way) * decoder.inner + 3 * rows * decoder.width
    return carried + numbers * way.number


def _busiest(network: Network, rows: int, way: Way) -> int:
    """Rows of the busiest expert, whose room the others take over: half more than its share.

    A token visits an expert once; one that is spread is visited by tokens of all ranks.
    """
    once = rows * way.spread // network.decoder.top_k
    return min(rows, once, 3 * rows // (2 * _experts(network, way)))


def _media(kind: str, load: Load) -> int:
    """Return how often an encoder looks: once for every frame of a film."""
    films = load.media.get("video", 0) * load.frames if kind == "image" else 0
    return load.media.get(kind, 0) + films


def _reader(network: Network, reader: Reader, load: Load, way: Way) -> int:
    """What a connector keeps where it, or its last map, learns."""
    if not {f"connector.{reader.kind}", f"projection.{reader.kind}"} & network.learns:
        return 0
    media, out = _media(reader.kind, load), network.decoder.width
    is_copied = reader.standardized or way.number != _FLOAT  # else it reads the features themselves
    read = reader.rows * reader.reads * is_copied
    if reader.kind == "image":
        return media * (read + 2 * reader.rows * out) * way.number
    looks = reader.layers if reader.kind == "speech" else -(-reader.layers // 2)
    seen = 2 * reader.rows * reader.width + reader.heads * reader.queries * reader.rows
    own = reader.heads * reader.queries**2
    own += reader.queries * ((13 if reader.kind == "speech" else 9) * reader.width)
    own += reader.queries * 2 * reader.inner
    once = read + (reader.rows * reader.width if reader.reads != reader.width else 0)
    crossing = 4 * reader.queries * reader.width if reader.kind == "audio" else 0
    numbers = once + looks * (seen + crossing) + reader.layers * own
    return media * numbers * way.number
