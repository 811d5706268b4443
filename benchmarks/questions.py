"""How long questions to the index take: lineage in a large graph, impact over many exposures.

Each question looks whether the index knows all that is here, and opens it anew, as the command
does; what Python needs to start is not in it. The file has just been written, so the system's cache
holds what fits. Samples are asked about at random, of any modality; an answer holds every model
that was ever made of what saw them.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.answers import Bar, Case, Number, at_most
from benchmarks.asked_graph import Graph, sample_key, write_graph, write_samples, write_tables
from benchmarks.setup import Setup
from uni_moe.artifacts import Layout
from uni_moe.records import MODALITIES
from uni_moe.registry.asked import Asked
from uni_moe.registry.database import writing
from uni_moe.registry.impact import impact
from uni_moe.registry.indexing import catch_up
from uni_moe.registry.lineage import lineage
from uni_moe.registry.versions import VARIABLE

BAR_MS, BAR_SERVER_MS = 200.0, 1000.0  # p95, on SQLite and on a server
_CLOCKS = ("wall_s", "computed_s")
NODES, LEDGERS, EACH, ASKED = 1_000_000, 1_000, 100_000, 200


def add_options(parser: argparse.ArgumentParser) -> None:
    """Sizes of one's own, and a server to ask."""
    for name, value, text in (
        ("nodes", NODES, "artifacts of the graph"),
        ("ledgers", LEDGERS, "ledgers"),
        ("each", EACH, "samples of each ledger, and of each modality"),
        ("asked", ASKED, "questions of each kind"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=value, help=f"{text}; default: %(default)s"
        )
    parser.add_argument("--url", help="an empty PostgreSQL database; default: SQLite in a file")


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Generate, ask at random, and tell the middle and the 95th percentile."""
    bar = at_most(BAR_SERVER_MS if options.url else BAR_MS)
    if options.url:
        os.environ[VARIABLE] = options.url
    dice = random.Random(setup.seed)
    with tempfile.TemporaryDirectory() as folder:
        yield _lineage_case(Layout(Path(folder)), options, setup.seed, dice, bar)
    with tempfile.TemporaryDirectory() as folder:
        yield _impact_case(Layout(Path(folder)), options, setup.seed, dice, bar)


def _lineage_case(
    layout: Layout,
    options: argparse.Namespace,
    seed: int,
    dice: random.Random,
    bar: Bar,
) -> Case:
    began = time.perf_counter()
    with writing(layout, afresh=True) as session:
        graph = write_graph(session, seed, nodes=options.nodes)
    facts = _facts(layout, graph, began)
    models = [dice.choice(graph.models) for _ in range(options.asked)]
    sizes: list[int] = []

    def up(place: int) -> None:
        catch_up(layout, data=False)
        sizes.append(len(lineage(layout, models[place]).up))

    def down(place: int) -> None:
        catch_up(layout, data=False)
        lineage(layout, models[place], down=True)

    numbers = [
        *_numbers("lineage of a model, to its sources", timed(up, options.asked), bar),
        *_numbers("the same, and down to all made from it", timed(down, options.asked), bar),
    ]
    facts["artifacts_of_an_answer"] = f"{min(sizes)} to {max(sizes)}"
    return Case(f"lineage in a graph of {graph.nodes:,} artifacts", numbers=numbers, facts=facts)


def _impact_case(
    layout: Layout,
    options: argparse.Namespace,
    seed: int,
    dice: random.Random,
    bar: Bar,
) -> Case:
    began = time.perf_counter()
    with writing(layout, afresh=True) as session:
        graph = write_graph(session, seed, phases=options.ledgers)
        numbers = write_samples(session, options.each)
        told = sum(write_tables(session, graph, numbers, options.ledgers, seed))
    facts = _facts(layout, graph, began)
    kinds = [dice.choice(MODALITIES) for _ in range(options.asked)]
    keys = [sample_key(int(dice.choice(numbers[kind])), kind) for kind in kinds]
    sizes: list[int] = []

    def ask(place: int) -> None:
        catch_up(layout)
        sizes.append(len(impact(layout, Asked((keys[place],))).touched))

    found = _numbers("impact of a sample", timed(ask, options.asked), bar)
    facts["artifacts_of_an_answer"] = f"{min(sizes)} to {max(sizes)}"
    return Case(f"impact over {told:,} exposures", numbers=found, facts=facts)


@dataclass(frozen=True)
class Took:
    """Seconds of one question: by the clock, and those that this process computed."""

    wall_s: float
    computed_s: float


def timed(ask: Callable[[int], None], times: int) -> list[Took]:
    """Return how long each question took."""
    found = []
    gc.collect()
    gc.freeze()  # what this process holds beside a question, torch above all, is no part of it
    for place in range(times):
        began, computed = time.perf_counter(), time.process_time()
        ask(place)
        found.append(Took(time.perf_counter() - began, time.process_time() - computed))
    return found


def _numbers(what: str, took: Sequence[Took], bar: Bar) -> list[Number]:
    wall, computed = ([getattr(one, name) * 1e3 for one in took] for name in _CLOCKS)
    return [
        Number(f"{what}, p50", statistics.median(wall), "ms"),
        Number(f"{what}, p95", _p95(wall), "ms", bar=bar),
        Number(f"{what}, p95 of what it computes", _p95(computed), "ms"),
    ]


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1] if len(values) > 1 else values[0]


def _facts(layout: Layout, graph: Graph, began: float) -> dict[str, object]:
    size = layout.registry.stat().st_size if layout.registry.is_file() else None
    return {
        "artifacts": graph.nodes,
        "edges": graph.edges,
        "versions": len(graph.models),
        "generated_in_s": round(time.perf_counter() - began, 1),
        "database_gb": None if size is None else round(size / 1e9, 2),
    }
