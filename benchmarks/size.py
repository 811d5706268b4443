"""The recipes of the paper's four models on the meta device: parameters, and what counting costs.

They are counted in a process of its own, whose time and memory include its imports.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from benchmarks import machine
from benchmarks.answers import Case, Number, at_most
from benchmarks.setup import Setup
from uni_moe.config import load_params
from uni_moe.workspace import recipe_file

PAPER = {  # recipe -> billions of parameters of the language model: all, activated
    "paper-4-interval": (13.2, 8.9),
    "paper-4-all": (19.7, 11.1),
    "paper-8-interval": (21.9, 8.9),
    "paper-8-all": (37.0, 11.1),
}
TOLERANCE_B = 0.1  # as the paper rounds
SECONDS, GIGABYTES = 30.0, 2.0


@dataclass(frozen=True)
class Counted:
    """What the other process found: billions of parameters, seconds, and its peak of memory."""

    found: dict[str, tuple[float, float]]
    seconds: dict[str, float]
    peak_gb: float


def add_options(parser: argparse.ArgumentParser) -> None:
    """It has none of its own; rounds are not repeated."""
    del parser


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Count all four models once."""
    del setup, options
    began = time.perf_counter()
    with get_context("spawn").Pool(1) as pool:
        counted = pool.apply(count)
    yield case_of(counted, time.perf_counter() - began)


def count() -> Counted:
    """Build every model without its memory and count it."""
    from uni_moe.model.architectures import size_of
    from uni_moe.train.planned import planned_config

    found, seconds = {}, {}
    for recipe in PAPER:
        began = time.perf_counter()
        size = size_of(planned_config(load_params(recipe_file(recipe)), Path.cwd()))
        found[recipe] = size.language / 1e9, size.activated / 1e9
        seconds[recipe] = time.perf_counter() - began
    return Counted(found, seconds, machine.peak_bytes() / 1e9)


def case_of(counted: Counted, seconds: float) -> Case:
    """Hold what was counted against the paper, and what it took against the bars."""
    numbers = []
    for recipe, wanted in PAPER.items():
        pairs = zip(("total", "activated"), wanted, counted.found[recipe], strict=True)
        for name, paper, found in pairs:
            what = f"{recipe}: {found:.2f} B {name}, the paper's {paper:g} B, off by"
            facts = {"found": found, "seconds": counted.seconds[recipe]}
            off = abs(found - paper)
            numbers.append(Number(what, off, "B", bar=at_most(TOLERANCE_B), facts=facts))
    numbers.append(Number("all of them, with imports", seconds, "s", bar=at_most(SECONDS)))
    numbers.append(Number("most memory held", counted.peak_gb, "GB", bar=at_most(GIGABYTES)))
    return Case("language models of the paper, meta device", numbers=numbers)
