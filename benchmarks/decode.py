"""How fast answers are written, beside transformers' generate and beside what memory allows.

Both networks have the same weights, and both are asked through their public `generate`. What was
read before is in the cache already, all but the prompt's last token, so that steps of one token
alone are timed. Beside both stands F.linear over what a written answer needs: attention's matrices,
the experts that our network chose for it with the rows that it gave them, and the head, each
multiplied once a step, and nothing else. That is mostly reading, yet torch's product does not read
as fast as memory does, and a network may be faster. So the bytes of these weights that everyone
gets through in a second are told beside what this machine reads when it only sums numbers up.

Shapes
    B  prompts    T  positions    K  experts each token visits
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, MixtralConfig, MixtralForCausalLM

from benchmarks.answers import Bars, Case, Claim, Number, at_least, at_most, rows_of
from benchmarks.peers import DTYPES
from benchmarks.places import Clock, Run
from benchmarks.rounds import OURS, Contender, Measured, middle
from benchmarks.setup import Setup
from uni_moe.model.backends.base import visits_of
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration

PRODUCTS = "F.linear over the active weights"
PEERS = {"mixtral eager": "eager", "mixtral grouped": "grouped_mm"}
_FIRST_WORD = 3  # ids below are padding, begin and end
_SUMMED_BYTES = 1 << 29  # more than caches hold
_SUMS = 5
_CHECKED = 3  # prompts whose tokens are compared


@dataclass(frozen=True)
class Shape:
    """Sizes of both networks, and how much they read and write."""

    batch: int = 1
    dtype: str = "float32"
    width: int = 512
    inner: int = 1376
    layers: int = 8
    heads: int = 8
    experts: int = 4
    top_k: int = 2
    vocabulary: int = 8000
    prompt: int = 32
    new: int = 24

    def __str__(self) -> str:
        """Return how tables call it."""
        return (
            f"batch {self.batch}, {self.dtype}, {self.layers} layers H={self.width} "
            f"I={self.inner} E={self.experts} top-{self.top_k}, prompt {self.prompt} + {self.new}"
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which of the cases, and how much is read and written."""
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    for name in ("width", "inner", "layers", "heads", "experts", "prompt", "new"):
        default = getattr(Shape(), name)
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Measure every batch size in every precision."""
    names = ("width", "inner", "layers", "heads", "experts", "prompt", "new")
    base = replace(Shape(), **{name: getattr(options, name) for name in names})
    for batch in options.batch:
        for dtype in options.dtype:
            yield _case(setup, replace(base, batch=batch, dtype=dtype))


def _case(setup: Setup, shape: Shape) -> Case:
    build = partial(runs, shape, setup.seed, setup.device)
    measured = setup.compare(partial(build, with_ours=True), partial(build, with_ours=False))
    ours, products = Contender(OURS), Contender(PRODUCTS)
    bars = setup.held(bars_of(shape, setup.device))
    pairs = [(ours, products), (products, ours)]
    pairs += [(one, ours) for one in measured.seconds if one not in (ours, products)]
    pairs += [pair for pair in bars if pair not in pairs]
    rows = rows_of(measured, [Claim(*pair, bars.get(pair)) for pair in pairs])
    numbers = [
        *_speeds(measured, shape),
        *_read(measured, shape, setup),
        differing(shape, setup.seed, setup.device),
    ]
    return Case(str(shape), rows, numbers, clock=str(setup.clock))


def bars_of(shape: Shape, device: str) -> Bars:
    """Return what is asked for at these sizes on a CPU, of peers with the same settings."""
    if device != "cpu" or replace(shape, batch=1, dtype="float32") != Shape():
        return {}
    ours, alone = Contender(OURS), shape.batch == 1
    bars = {(Contender(name), ours): at_least(1.35 if alone else 1.0) for name in PEERS}
    return {**bars, (Contender(PRODUCTS), ours): at_least(0.65)} if alone else bars


def _speeds(measured: Measured, shape: Shape) -> list[Number]:
    tokens = shape.batch * shape.new
    return [
        Number(f"{one}, tokens per second", tokens / middle(seconds)[1])
        for one, seconds in measured.seconds.items()
    ]


def _read(measured: Measured, shape: Shape, setup: Setup) -> Iterator[Number]:
    """Give the bytes of active weights a second, and their share of what memory gives."""
    size = active_bytes(network(shape, setup.seed, setup.device), shape)
    bandwidth = read_bandwidth(setup.clock)
    yield Number("read bandwidth, summing up", bandwidth / 1e9, "GB/s")
    for one in (Contender(OURS), Contender(PRODUCTS)):
        each = size / middle(measured.seconds[one])[1]
        yield Number(f"{one}, active weights", each / 1e9, "GB/s")
        yield Number(f"{one}, share of the read bandwidth", each / bandwidth)


def read_bandwidth(clock: Clock) -> float:
    """Return the most bytes per second that a sum over a large tensor reads."""
    x = torch.ones(_SUMMED_BYTES // 4, device=clock.device)
    x.sum()
    times = [clock.now()]
    for _ in range(_SUMS):
        x.sum()
        times.append(clock.now())
    return _SUMMED_BYTES / min(after - before for before, after in pairwise(times))


def runs(shape: Shape, seed: int, device: str, *, with_ours: bool) -> dict[str, Run]:
    """Build both networks from one set of weights, and what only multiplies by them."""
    ours = network(shape, seed, device)
    theirs = mixtral(shape, ours)
    found: dict[str, Run] = {
        name: partial(_theirs, theirs, way, shape) for name, way in PEERS.items()
    }
    if not with_ours:
        return found
    return {OURS: partial(_generate, ours, shape), **found, PRODUCTS: products(ours, shape)}


def network(shape: Shape, seed: int, device: str) -> UniMoeForConditionalGeneration:
    """Return our network, all layers sparse, without encoders."""
    torch.manual_seed(seed)
    config = UniMoeConfig(
        LlamaConfig(**_text(shape)),
        sparse_layers="all",
        num_experts=shape.experts,
        experts_per_token=shape.top_k,
    )
    model = UniMoeForConditionalGeneration(config).to(device, DTYPES[shape.dtype])
    return model.eval()


def mixtral(shape: Shape, ours: UniMoeForConditionalGeneration) -> Any:  # noqa: ANN401 - untyped
    """Return transformers' network with the weights of ours, none of them copied."""
    config = MixtralConfig(
        **_text(shape), num_local_experts=shape.experts, num_experts_per_tok=shape.top_k
    )
    with torch.device("meta"):
        model = MixtralForCausalLM(config)
    state = {
        name.removeprefix("language_model.").replace(".router.", ".gate."): tensor
        for name, tensor in ours.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # has buffers, no weights
    return model.to(ours.device).eval()


def _text(shape: Shape) -> dict[str, Any]:
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _theirs(
    model: Any,  # noqa: ANN401 - transformers is untyped here
    implementation: str,
    shape: Shape,
    index: int,
) -> Callable[[], Tensor]:
    model.set_experts_implementation(implementation)
    return _generate(model, shape, index)


def _generate(
    model: Any,  # noqa: ANN401 - transformers is untyped here
    shape: Shape,
    index: int,
) -> Callable[[], Tensor]:
    """Read a prompt of its own; prepare a greedy answer to it, always of the same length."""
    ids_BT = _prompts(shape, index).to(model.device)
    with torch.no_grad():
        read = model(input_ids=ids_BT[:, :-1], use_cache=True).past_key_values

    def call() -> Tensor:
        written: Tensor = model.generate(
            input_ids=ids_BT,
            attention_mask=torch.ones_like(ids_BT),
            past_key_values=read,
            do_sample=False,
            min_new_tokens=shape.new,
            max_new_tokens=shape.new,
        )
        return written[:, shape.prompt :]

    return call


def _prompts(shape: Shape, index: int) -> Tensor:
    generator = torch.Generator().manual_seed(index)
    size = (shape.batch, shape.prompt)
    return torch.randint(_FIRST_WORD, shape.vocabulary, size, generator=generator)


def products(model: UniMoeForConditionalGeneration, shape: Shape) -> Run:
    """Return what multiplies every weight that a written answer needs, once a step."""
    attention, experts, head = active_weights(model)
    visits = visits_of_answer(model, shape)

    @cache
    def rows(count: int, width: int) -> Tensor:
        return torch.ones(count, width, dtype=head.dtype, device=head.device)

    def once(step: int) -> None:
        for layer, weights in enumerate(attention):
            for weight in weights:
                F.linear(rows(shape.batch, weight.shape[1]), weight)
            for expert, count in enumerate(visits[layer][step]):
                if count:
                    gate_up, down = experts[layer][expert]
                    F.linear(rows(count, shape.width), gate_up)
                    F.linear(rows(count, shape.inner), down)
        F.linear(rows(shape.batch, shape.width), head)

    def call() -> None:
        with torch.no_grad():
            for step in range(shape.new):
                once(step)

    return lambda _: call


def visits_of_answer(model: UniMoeForConditionalGeneration, shape: Shape) -> list[list[list[int]]]:
    """Return layer -> step -> each expert's rows, while our network answers the first prompts."""
    written = _generate(model, shape, 0)()
    ids_BT = torch.cat([_prompts(shape, 0).to(written.device), written], dim=1)[:, :-1]
    with torch.no_grad():
        routing = model(input_ids=ids_BT, use_cache=False, output_routing=True).routing
    found = []
    for _, one in sorted(routing.items()):
        expert_BTK = one.expert_TK.view(*ids_BT.shape, shape.top_k)
        steps = expert_BTK[:, shape.prompt - 1 :].unbind(1)
        found.append([visits_of(expert_BK, shape.experts).load() for expert_BK in steps])
    return found


def active_bytes(model: UniMoeForConditionalGeneration, shape: Shape) -> int:
    """Return the bytes of all weights that an answer's steps need, each counted once a step."""
    attention, experts, head = active_weights(model)
    visits = visits_of_answer(model, shape)
    always = sum(weight.nbytes for layer in attention for weight in layer) + head.nbytes
    chosen = sum(
        sum(part.nbytes for part in pair)
        for layer, pairs in enumerate(experts)
        for step in range(shape.new)
        for pair, count in zip(pairs, visits[layer][step], strict=True)
        if count
    )
    return shape.new * always + chosen


def active_weights(
    model: UniMoeForConditionalGeneration,
) -> tuple[list[list[Tensor]], list[list[tuple[Tensor, Tensor]]], Tensor]:
    """Return per layer the attention's matrices and the experts' pairs of them, and the head."""
    attention: list[list[Tensor]] = []
    experts: list[list[tuple[Tensor, Tensor]]] = []
    for layer in model.language_model.model.layers:
        names = ("q_proj", "k_proj", "v_proj", "o_proj")
        attention.append([layer.self_attn.get_submodule(name).weight for name in names])
        stacks = layer.mlp.experts
        experts.append(list(zip(stacks.gate_up_proj, stacks.down_proj, strict=True)))
    head = model.get_output_embeddings().get_parameter("weight")
    return attention, experts, head


def differing(shape: Shape, seed: int, device: str) -> Number:
    """Return how many tokens both networks write differently in a few batches."""
    ours = network(shape, seed, device)
    theirs = mixtral(shape, ours)
    same = total = 0
    for index in range(_CHECKED):
        a = _generate(ours, shape, index)()
        b = _theirs(theirs, "eager", shape, index)()
        same, total = same + int((a == b).sum()), total + a.numel()
    bar = at_most(0)
    return Number(f"tokens that differ, of {total}", total - same, bar=bar)
