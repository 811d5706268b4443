"""What a training is said to need of memory, beside what its process holds.

Each configuration trains a few steps on drawn batches in a process of its own, or in two, through
the real engine. Held is the peak of its resident memory beyond a baseline: the same process with
its imports, its group and an engine that has run, before there is a network. Most map tensors one
by one (`platform.allocator: map`) and keep few compiled products, so that what is counted stands
alone; some keep both, as the default does: the gaps of the C library's heap are a measured share.
What is said is what a plan says and a start is refused by. At last a whole `tune` runs as a stage:
what it was said to need, its process and all, stands beside the most that it held. Linux only.

On an accelerator the networks are wider, one process trains each of them, and held is the peak of
what its allocator took from the device.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.answers import Case, Number, at_least, at_most
from benchmarks.setup import Setup
from benchmarks.whole_tune import of_a_tune
from uni_moe.config import Platform
from uni_moe.errors import ConfigError, StageError
from uni_moe.platform import choose, device
from uni_moe.routes import Routes
from uni_moe.train.activations import Load
from uni_moe.train.compiled import Shapes
from uni_moe.train.learning import learning_of
from uni_moe.train.loads import Loads
from uni_moe.train.memory import Around, Memory, Ranks
from uni_moe.train.preflight import memory_needed

TOO_HIGH, TOO_LOW = 1.10, 0.95  # said over held
STEPS = 4
_WIDER = 4  # on an accelerator
_IMAGE, _PATCH, _SEES = 112, 14, 256  # of the encoder whose features are drawn
_ENVIRONMENT = {"LRU_CACHE_CAPACITY": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16"}
TUNE = ("lora.attention", "lora.experts", "router")


@dataclass(frozen=True)
class Training:
    """A network, a micro-batch and how it is spread; `pictures` stand in each row."""

    width: int = 512
    inner: int = 1376
    layers: int = 6
    heads: int = 8
    words: int = 8000
    sparse: tuple[int, ...] = ()
    experts: int = 4
    learns: tuple[str, ...] = TUNE
    rank: int = 8
    rows: int = 8
    length: int = 256
    labels: int = 64
    pictures: int = 0
    packed: bool = False
    batches: int = 1
    world: int = 1
    zero_stage: int = 0
    expert_parallel: int = 1
    offload: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = False
    attention: Literal["plain", "fused"] = "plain"
    experts_by: Literal["fused", "grouped"] = "fused"
    allocator: Literal["map", "keep"] = "map"

    @property
    def on_accelerator(self) -> Training:
        """The same, much wider, with the attention that everybody takes there."""
        return replace(
            self,
            width=_WIDER * self.width,
            inner=_WIDER * self.inner,
            heads=_WIDER * self.heads,
            attention="fused",
            allocator="keep",
        )

    @property
    def platform(self) -> Platform:
        """How it is computed."""
        return replace(
            Platform.auto(1),
            allocator=self.allocator,
            attention=self.attention,
            experts=self.experts_by,
        )

    @property
    def routes(self) -> Routes:
        """What is said to be computed: few products that oneDNN compiles are kept, or all."""
        chosen = choose(self.platform)
        return chosen if self.allocator == "keep" else replace(chosen, matmul="default")

    @property
    def ranks(self) -> Ranks:
        """How it is spread."""
        return Ranks(
            self.world,
            self.zero_stage,
            self.expert_parallel,
            offload=self.offload,
            precision=self.precision,
            activation_checkpointing=self.checkpointing,
            accelerator=device().type != "cpu",
        )


CONFIGURATIONS: Mapping[str, Training] = {
    "LoRA on attention": Training(learns=("lora.attention",)),
    "LoRA on feed-forwards": Training(
        learns=("lora.feed_forward",), rank=64, rows=16, length=128, attention="fused"
    ),
    "all of a language model": Training(learns=("language",)),
    "all of a wide one, short rows": Training(
        width=1024, inner=2752, layers=4, heads=16, learns=("language",), rows=2, length=128
    ),
    "many words": Training(
        width=384, inner=1024, heads=6, words=32_000, learns=("lora.attention",), labels=128
    ),
    "a connector of pictures": Training(
        learns=("connector.image",), rows=4, length=320, labels=16, pictures=3
    ),
    "tune, every second layer": Training(sparse=(0, 2, 4)),
    "tune, every second layer, freed memory kept": Training(sparse=(0, 2, 4), allocator="keep"),
    "LoRA on attention, freed memory kept": Training(learns=("lora.attention",), allocator="keep"),
    "tune, all layers, 8 experts": Training(
        layers=4, sparse=(0, 1, 2, 3), experts=8, rows=2, length=512
    ),
    "tune, narrow, many short rows": Training(
        width=256, inner=688, layers=8, sparse=(0, 2, 4, 6), rows=32, length=96, labels=12
    ),
    "tune, grouped experts, packed": Training(
        sparse=(0, 2, 4), packed=True, attention="fused", experts_by="grouped"
    ),
    "tune, checkpointed": Training(sparse=(0, 2, 4), rows=16, checkpointing=True),
    "tune, grouped experts, checkpointed": Training(
        sparse=(0, 2, 4), rows=16, checkpointing=True, experts_by="grouped"
    ),
    "tune, many visits": Training(sparse=(0, 2, 4), rows=32),
    "tune, two micro-batches": Training(sparse=(0, 2, 4), batches=2, rows=6),
    "tune, bfloat16": Training(sparse=(0, 2, 4), precision="bfloat16"),
    "all of it, offloaded": Training(learns=("language",), offload=True),
    "2 ranks, ZeRO 1, all of it": Training(learns=("language",), rows=4, world=2, zero_stage=1),
    "2 ranks, ZeRO 2, all of it": Training(learns=("language",), rows=4, world=2, zero_stage=2),
    "2 ranks, ZeRO 3, tune": Training(sparse=(0, 2, 4), rows=4, world=2, zero_stage=3),
    "2 ranks, experts spread": Training(
        sparse=(0, 1, 2, 3, 4, 5), rows=2, world=2, expert_parallel=2
    ),
}


WHOLE = "a whole tune"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what this question may be asked."""
    parser.add_argument(
        "--only", choices=[*CONFIGURATIONS, WHOLE], action="append", help="default: all of them"
    )


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Say and measure every configuration once, and a whole stage.

    Raises:
        ConfigError: one is asked for that an accelerator does not tell.
    """
    on_cpu = setup.device == "cpu"
    known = [*CONFIGURATIONS, WHOLE] if on_cpu else _alone()
    asked = options.only or known
    if others := [name for name in asked if name not in known]:
        raise ConfigError(
            f"On an accelerator this is not measured: {', '.join(others)}.",
            cause="several processes, how a CPU's allocators differ, and what a process holds "
            "without a device are asked of a CPU.",
            remedy="leave --only out, or say --device cpu.",
        )
    chosen = {name: CONFIGURATIONS[name] for name in asked if name != WHOLE}
    if not on_cpu:
        chosen = {name: one.on_accelerator for name, one in chosen.items()}
    if chosen:
        yield case_of(chosen)
    if WHOLE in asked:
        with tempfile.TemporaryDirectory() as folder:
            yield whole_case(Path(folder) / "space")


def _alone() -> list[str]:
    """Return what one process trains, by the allocator that everybody has."""
    return [
        name for name, one in CONFIGURATIONS.items() if one.world == 1 and one.allocator == "map"
    ]


def case_of(trainings: Mapping[str, Training]) -> Case:
    """Return what was said over what was held, by configuration."""
    numbers, ratios = [], []
    for name, training in trainings.items():
        said, held = needed(training).needed, measured(training)
        ratios.append(said / held)
        facts = {"said_bytes": said, "held_bytes": held}
        what = f"{name}: {said / 1e6:.0f} MB said over {held / 1e6:.0f} MB held"
        numbers.append(Number(what, ratios[-1], facts=facts))
    numbers += _held_to_bars(ratios)
    return Case("memory said over memory held, beyond a process without a network", numbers=numbers)


def _held_to_bars(ratios: Sequence[float]) -> list[Number]:
    return [
        Number("the highest", max(ratios), bar=at_most(TOO_HIGH)),
        Number("the lowest", min(ratios), bar=at_least(TOO_LOW)),
    ]


def whole_case(root: Path) -> Case:
    """Run a small road to the end of `tune`; return what that was said to need over what it held.

    Raises:
        StageError: a stage failed.
    """
    said, held = of_a_tune(root)
    ratio = said["needed_bytes"] / held
    what = f"{said['needed_bytes'] / 1e6:.0f} MB said over {held / 1e6:.0f} MB held"
    facts = {"said_bytes": said["needed_bytes"], "held_bytes": held, "parts": said["parts"]}
    numbers = [Number(what, ratio, facts=facts), *_held_to_bars([ratio])]
    return Case(f"memory of {WHOLE}, its process and all", numbers=numbers)


def needed(training: Training) -> Memory:
    """Return what a training is said to need."""
    length, rows = training.length, training.rows
    load = Load(
        rows=1 if training.packed else rows,
        length=rows * length if training.packed else length,
        labels=rows * training.labels,
        spans=((rows, length),) if training.packed else (),
        media={"image": rows * training.pictures},
    )
    shapes = Shapes(
        positions=1,
        labels=1,
        groups=1,
        media={"image": 1} if training.pictures else {},
        visited=load.positions,
        batches=STEPS * training.batches,
    )
    learning = learning_of(
        _configuration(training),
        training.learns,
        rank=training.rank if _has_adapters(training) else None,
        layers=range(training.layers),
    )
    loads = Loads(
        load, training.batches, rows * training.batches, load.positions, load.labels, shapes
    )
    return memory_needed(learning, loads, training.ranks, Around(), 0, training.routes)


def measured(training: Training) -> int:
    """Return the bytes that the first process of a training held at its peak.

    Raises:
        StageError: a process failed.
    """
    told = json.dumps(asdict(training))
    others = [_process(training, told, rank) for rank in range(1, training.world)]
    first = _process(training, told, 0)
    said, _ = first.communicate()
    for process in others:
        process.communicate()
    if first.returncode or any(process.returncode for process in others):
        raise StageError(
            "A training that should be measured failed.",
            cause="what it said stands above.",
            remedy="mend that first.",
        )
    return int(json.loads(said.splitlines()[-1])["held_bytes"])


def _process(training: Training, told: str, rank: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", told]
    environment = {**os.environ, **(_ENVIRONMENT if training.allocator == "map" else {})}
    if training.world > 1:
        environment |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(training.world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_port()),
            "GLOO_SOCKET_IFNAME": "lo",
        }
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)


_PORTS: list[int] = []


def _port() -> int:
    """Return the port where the processes of this question meet."""
    if not _PORTS:
        with socket.socket() as door:
            door.bind(("127.0.0.1", 0))
            _PORTS.append(door.getsockname()[1])
    return _PORTS[0]


def train(training: Training) -> int:
    """Train in this process, and return the bytes it held at its peak beyond the baseline."""
    from uni_moe.platform import settle
    from uni_moe.train.engine import EngineOptions

    settle(training.platform)
    options = EngineOptions(zero_stage=training.zero_stage, offload_optimizer=training.offload)
    _take_steps(*_warming(training), options, batches=1)
    gc.collect()
    held = _count_anew()
    options = replace(options, expert_parallel=training.expert_parallel)
    _take_steps(*_training(training), options, batches=training.batches)
    return held()


def _count_anew() -> Callable[[], int]:
    """Return what tells the bytes that were held at most from now on, beyond those of now."""
    import torch

    if device().type != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        reserved = torch.cuda.memory_reserved()
        return lambda: torch.cuda.max_memory_reserved() - reserved
    resident = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    return lambda: _status("VmHWM") - resident


def _take_steps(module: Any, inputs: Any, labels: float, options: Any, *, batches: int) -> None:  # noqa: ANN401 - what brings much with it comes late
    from uni_moe.train.engine import Engine
    from uni_moe.train.learner import placed

    engine = Engine(module, weight_decay=0.0, clip_norm=1.0, options=options)
    for _ in range(STEPS):
        module.train()
        for at in range(batches):
            batch = placed({k: v for k, v in inputs.items() if k != "modalities"}, device())
            total = engine.forward({**batch, "modalities": inputs["modalities"]}).total
            del batch
            engine.backward(total, labels * batches, last=at == batches - 1)
            del total
        engine.step(1e-4)


def _warming(training: Training) -> tuple[Any, Any, float]:
    """Return a training too small to count, that loads what every one needs."""
    small = replace(
        training,
        width=64,
        inner=128,
        heads=4,
        layers=1,
        sparse=(0,) if training.sparse else (),
        words=64,
        rows=1,
        length=32 + 64 * bool(training.pictures),
        labels=8,
        pictures=bool(training.pictures),
        expert_parallel=1,
    )
    return _training(small)


def _training(training: Training) -> tuple[Any, Any, float]:
    """Return a module, its inputs, and how many labels it learns from."""
    import torch

    from uni_moe.model import adapters
    from uni_moe.model.network import UniMoeForConditionalGeneration
    from uni_moe.model.parts import learn
    from uni_moe.train.learner import PhaseModule
    from uni_moe.train.precision import hold

    torch.manual_seed(0)
    config = _configuration(training)
    model: Any = UniMoeForConditionalGeneration(config)
    wrapped = model
    if _has_adapters(training):
        wrapped = adapters.attach(
            model,
            training.learns,
            layers=range(training.layers),
            rank=training.rank,
            alpha=16,
            dropout=0.0,
            seed=0,
        )
    learn(wrapped, training.learns)
    hold(wrapped, training.precision)
    if training.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    rows, length = training.rows, training.length
    ids = torch.randint(0, training.words, (rows, length))
    labels = ids.where(torch.arange(length) >= length - training.labels, -100)
    inputs: dict[str, Any] = {"modalities": [""] * rows}
    if training.pictures:
        taken = config.image_rows
        ids[:, : training.pictures * taken] = config.slot_id("image")
        inputs["features"] = {"image": torch.randn(rows * training.pictures, taken, _SEES)}
    if training.packed:
        inputs["segment_BT"] = torch.arange(rows).repeat_interleave(length)[None]
        ids, labels = ids.view(1, -1), labels.view(1, -1)
    else:
        inputs["attention_mask"] = torch.ones_like(ids)
    return (
        PhaseModule(wrapped, training.precision),
        {**inputs, "input_ids": ids, "labels": labels},
        float(rows * training.labels),
    )


def _configuration(training: Training) -> Any:  # noqa: ANN401 - a UniMoeConfig
    from transformers import CLIPVisionConfig, LlamaConfig

    from uni_moe.model.config import UniMoeConfig

    return UniMoeConfig(
        LlamaConfig(
            vocab_size=training.words,
            hidden_size=training.width,
            intermediate_size=training.inner,
            num_hidden_layers=training.layers,
            num_attention_heads=training.heads,
            num_key_value_heads=training.heads,
            max_position_embeddings=4096,
        ),
        CLIPVisionConfig(
            hidden_size=_SEES,
            intermediate_size=_SEES,
            num_hidden_layers=1,
            num_attention_heads=4,
            image_size=_IMAGE,
            patch_size=_PATCH,
        )
        if training.pictures
        else None,
        sparse_layers=training.sparse,
        num_experts=training.experts,
    )


def _has_adapters(training: Training) -> bool:
    return any(part.startswith("lora.") for part in training.learns)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def main(words: Sequence[str]) -> None:
    """Train what is told as JSON, and say what was held."""
    told = json.loads(words[0])
    told |= {name: tuple(told[name]) for name in ("sparse", "learns")}
    sys.stdout.write(json.dumps({"held_bytes": train(Training(**told))}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
