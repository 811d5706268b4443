"""Memory of one process while it trains, part by part and moment by moment: pure arithmetic.

What must be there at the busiest moment of a step, from the second step on, when the optimizer has
its moments. What weights take and where each ZeRO stage keeps copies is counted from DeepSpeed's
own behaviour; what a step keeps stands in `activations`. Bytes; W counts numbers that learn.

Not covered: an encoder at work, which looks at one medium at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from uni_moe.train.activations import Kept
from uni_moe.train.precision import Precision
from uni_moe.train.sizes import Weights

Part = Literal[
    "frozen",
    "trained",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "features",
    "states",
    "engine",
    "heap",
    "process",
]
PARTS: tuple[Part, ...] = Part.__args__  # type: ignore[attr-defined] # what a Literal lists
# DeepSpeed's defaults, in numbers: what it sends at once, fetches ahead, and keeps gathered.
BUCKET, FETCHED, GATHERED = 500_000_000, 50_000_000, 1_000_000_000
# glibc's heap holds pieces between its blocks that stay unused, as shares of what moves in a step:
# of one step, and more for each step of another size (measured with glibc 2.36: 0.64 to 0.80 for
# steps of one size, whatever learns; 2.25 for forty, after which it still grew).
_GAPS, _GAPS_OF_A_SIZE = 0.71, 0.0385
MOVING: tuple[Part, ...] = ("gradients", "activations", "logits")
_SMALL = 8_000_000  # what Python and the engine have around a network
_FLOAT = 4
NUMBER_BYTES: Mapping[Precision, int] = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Ranks:
    """How a step is spread over processes and computed: what a machine says of memory.

    `micro_positions` bounds the positions that are computed at once, where the machine does;
    `accelerator` says that each process has one, `offload` that the optimizer's states are not on
    it.
    """

    world: int = 1
    zero_stage: int = 0
    expert_parallel: int = 1
    offload: bool = False
    precision: Precision = "float32"
    activation_checkpointing: bool = False
    micro_positions: int | None = None
    accelerator: bool = False

    @property
    def stage(self) -> int:
        """The ZeRO stage that runs: what is offloaded has to stand apart from the weights."""
        return max(self.zero_stage, int(self.offload))

    @property
    def number(self) -> int:
        """Bytes of a number that is computed with, or frozen; what learns is float32 always."""
        return NUMBER_BYTES[self.precision]

    def share(self, count: int) -> int:
        """Return one rank's share of a count that is spread, padded to equal shares."""
        return -(-count // self.world)


@dataclass(frozen=True)
class Memory:
    """What a process needs. `moments` are the sums, `parts` what the busiest moment is made of."""

    moment: str
    parts: Mapping[Part, int]
    moments: Mapping[str, int] = field(default_factory=dict)

    @property
    def needed(self) -> int:
        """Bytes of the busiest moment."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Around:
    """What a process holds around a step's own bytes.

    `process` is there before there is a network, `remembered` features of media used of late.
    `loaded` counts the frozen network's copies while it is built. `saves` says that training states
    are written beside the steps, from copies on the CPU. `heap_share` is what the C library's heap
    holds unused.
    """

    process: int = 0
    remembered: int = 0
    loaded: int = 1
    saves: bool = False
    heap_share: float = 0.0


def heap_share(sizes: int) -> float:
    """Return what a heap that keeps what was freed holds unused, over what moves in a step.

    It grows with the steps' different `sizes`: what lies between blocks of one step is too small
    for another's. `platform.allocator: map` has no such heap.
    """
    return _GAPS + _GAPS_OF_A_SIZE * sizes


def memory_of(
    weights: Weights, kept: Kept, ranks: Ranks, *, batches: int = 1, around: Around | None = None
) -> Memory:
    """Return what one rank needs.

    Args:
        weights: the network's numbers.
        kept: what a micro-batch keeps.
        ranks: how many processes there are, and what each does.
        batches: micro-batches of a step; from the second on, gradients wait while it computes.
        around: what the process holds beside.
    """
    around = around or Around()
    held = _held_experts(weights, ranks)
    steady: dict[Part, int] = {
        **standing(held, ranks),
        "features": kept.features + around.remembered * (not ranks.accelerator),
        "states": 3 * weights.trained * _FLOAT * (around.saves and not ranks.accelerator),
        "process": around.process,
    }
    loading = {} if ranks.accelerator else _load(weights, ranks, around)
    found: dict[str, dict[Part, int]] = {"load": {**loading, "process": around.process}}
    if around.saves:
        found["state"] = _added(steady, _state(weights, ranks))
    for name, extra in _moments(held, kept, ranks, batches):
        parts = _added(steady, extra)
        parts["heap"] = int(around.heap_share * sum(parts.get(part, 0) for part in MOVING))
        if name not in found or sum(parts.values()) > sum(found[name].values()):
            found[name] = parts
    return _busiest(found)


def host_memory_of(
    weights: Weights, ranks: Ranks, *, here: int = 1, around: Around | None = None
) -> Memory:
    """Return what one rank needs of its machine's own memory, beside its accelerator's.

    The network is built there, whole on every rank; what CUDA's libraries map is not in it.

    Args:
        weights: the network's numbers.
        ranks: how many processes there are, and what each does.
        here: how many of them share the machine; one of them keeps copies of a training state.
        around: what the process holds beside; its `process` is that of a process without a device.
    """
    around = around or Around()
    mine = ranks.share(weights.trained) * _FLOAT
    copies = 3 * weights.trained * _FLOAT * around.saves
    found: dict[str, dict[Part, int]] = {
        "load": {**_load(weights, ranks, around), "process": around.process},
        "step": {
            "optimizer": 3 * mine * ranks.offload,
            "gradients": 2 * mine * ranks.offload,
            "features": around.remembered,
            "states": -(-copies // here),
            "process": around.process,
        },
    }
    return _busiest(found)


def _busiest(found: Mapping[str, Mapping[Part, int]]) -> Memory:
    """Return the moment that needs most, beside all of them."""
    busiest = max(found, key=lambda name: sum(found[name].values()))
    return Memory(
        busiest,
        {part: found[busiest].get(part, 0) for part in PARTS},
        {name: sum(parts.values()) for name, parts in found.items()},
    )


def _load(weights: Weights, ranks: Ranks, around: Around) -> dict[Part, int]:
    """What stands while the network is built on the CPU: all of it, on every rank.

    A mixture is read as it was written, in the precision; copies of a foundation are float32.
    """
    each = ranks.number if around.loaded == 1 else _FLOAT
    return {
        "frozen": weights.frozen * each * around.loaded,
        "trained": weights.trained * _FLOAT,
    }


def _added(*parts: Mapping[Part, int]) -> dict[Part, int]:
    found: dict[Part, int] = {}
    for one in parts:
        for part, size in one.items():
            found[part] = found.get(part, 0) + size
    return found


def standing(weights: Weights, ranks: Ranks) -> dict[Part, int]:
    """Return what stands between two steps, by ZeRO stage.

    Stage 0 has weights and two moments. Stages 1 and 2 have whole weights, and of a float32 copy
    and the moments a share. Stage 3 has a share of everything but encoders, gradients too, and a
    room that gradients are sent from. For an offloaded optimizer the CPU has gradients twice: those
    that are gathered, and those that it reads.
    """
    trained, mine = weights.trained, ranks.share(weights.trained)
    spread = weights.frozen - weights.towers
    if ranks.stage == 0:
        copies, learned, frozen = 2 * trained * _FLOAT, trained, spread
    elif ranks.stage < 3:
        copies, learned, frozen = 3 * mine * _FLOAT, trained, spread
    else:
        copies, learned, frozen = 3 * mine * _FLOAT, mine, ranks.share(spread)
    is_whole, on_the_cpu = ranks.stage == 3, ranks.offload and not ranks.accelerator
    return {
        "frozen": (frozen + weights.towers) * ranks.number,
        "trained": learned * _FLOAT,
        "optimizer": 0 if ranks.offload and ranks.accelerator else copies,
        "gradients": mine * _FLOAT * (is_whole + 2 * on_the_cpu),
        "engine": _SMALL + _room(weights, ranks) * is_whole,
    }


def _room(weights: Weights, ranks: Ranks) -> int:
    """Return the room that gradients are sent from; on a CPU only what is touched takes memory."""
    return (BUCKET if ranks.accelerator else min(weights.trained, BUCKET)) * _FLOAT


def _moments(
    weights: Weights, kept: Kept, ranks: Ranks, batches: int
) -> Iterator[tuple[str, dict[Part, int]]]:
    """Yield what stands beside `standing` at each moment of a step."""
    gradients = weights.trained * _FLOAT
    waiting = 0 if batches == 1 or ranks.stage == 3 else gradients
    if batches > 1 and ranks.stage == 2:
        waiting = ranks.share(weights.trained) * _FLOAT
    fetched, gathered = _gathered(weights, ranks)
    stands = kept.all - kept.logits - kept.features
    yield (
        "forward",
        {"activations": stands, "gradients": waiting, "engine": fetched + gathered},
    )
    yield (
        "loss",
        {
            "activations": stands,
            "logits": 3 * kept.logits,
            "gradients": waiting,
            "engine": gathered,
        },
    )
    for activations, made in _way_back(weights, kept):
        yield (
            "backward",
            {
                "activations": activations,
                "gradients": max(waiting, made * _FLOAT),
                "engine": gathered,
            },
        )
    reduction = _reduction(weights, ranks, gathered)
    if ranks.accelerator:  # what activations had lies between gradients: too small for a flat copy
        room = max(
            (a + max(waiting, made * _FLOAT) for a, made in _way_back(weights, kept)), default=0
        )
        reduction["activations"] = max(0, room - reduction["gradients"])
    yield "reduction", reduction
    yield "update", _update(weights, ranks)


def _gathered(weights: Weights, ranks: Ranks) -> tuple[int, int]:
    """Return what stage 3 fetches at once, and what it keeps gathered."""
    if ranks.stage < 3 or ranks.world == 1:
        return 0, 0
    whole = weights.frozen - weights.towers + weights.trained
    return min(whole, FETCHED) * ranks.number, min(whole, GATHERED) * ranks.number


def _way_back(weights: Weights, kept: Kept) -> Iterator[tuple[int, int]]:
    """Yield, for each layer from the last, the activations that stand and the gradients made."""
    made, below = weights.head, sum(kept.layers) + kept.head + kept.connectors
    for index in reversed(range(len(kept.layers))):
        yield below + kept.again[index] + kept.working[index], made
        below -= kept.layers[index]
        made += weights.by_layer[index] if weights.by_layer else 0


def _reduction(weights: Weights, ranks: Ranks, gathered: int) -> dict[Part, int]:
    """What stands when gradients are made and sent: copies of as many as are sent at once."""
    gradients = weights.trained * _FLOAT
    if ranks.stage == 3:
        alone = gradients if ranks.world == 1 else 0
        return {"gradients": gradients, "engine": gathered + alone}
    if ranks.stage == 0:
        return {"gradients": gradients, "engine": min(weights.trained, BUCKET) * _FLOAT}
    return {"gradients": gradients, "engine": _room(weights, ranks)}


def _update(weights: Weights, ranks: Ranks) -> dict[Part, int]:
    """What stands while the optimizer works: gradients, and float32 copies of a rank's share."""
    if ranks.stage == 0:
        return {"gradients": weights.trained * _FLOAT}
    mine = ranks.share(weights.trained) * _FLOAT
    if ranks.stage == 3:
        return {"engine": mine}
    return {"gradients": mine, "engine": mine}


def _state(weights: Weights, ranks: Ranks) -> dict[Part, int]:
    """What stands while a state is read: one tensor whole, or an expert's parts and itself.

    The copies of all stand among `states`; those of the state before are gone.
    """
    times = 2 if ranks.expert_parallel > 1 else int(ranks.stage > 0)
    return {"engine": weights.largest * _FLOAT * times}


def _held_experts(weights: Weights, ranks: Ranks) -> Weights:
    """Return a rank's numbers where experts are spread over ranks: those with most hold most."""
    if ranks.expert_parallel == 1 or weights.per_mixture == 0:
        return weights
    elsewhere = weights.per_mixture - -(-weights.per_mixture // ranks.expert_parallel)
    away, gone = (
        count // weights.per_mixture * elsewhere
        for count in (weights.experts, weights.learning_experts)
    )
    return replace(weights, frozen=weights.frozen - away, trained=weights.trained - gone)
