"""The command `python -m benchmarks QUESTION`: measure, print tables, keep them as JSON."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uni_moe.errors import UniMoeError

QUESTIONS = {
    "layer": "the sparse layer beside a dense one and the layers of others",
    "lora": "low-rank adapters on experts beside peft's own ways",
    "decode": "generation beside transformers' and beside what memory allows",
    "step": "an optimizer step of tuning beside the way of the published code",
    "memory": "memory that a training is said to need beside what it holds",
    "size": "the paper's models on the meta device: parameters, time, memory",
}
ROUNDS = 9


def main(argv: Sequence[str] | None = None) -> int:
    """Answer one question and return the exit code."""
    first, _ = _parser(add_help=False).parse_known_args(argv)
    _environment(first)
    try:
        question = importlib.import_module(f"benchmarks.{first.question}")
        parser = _parser(add_help=True)
        question.add_options(parser)
        return _run(question, parser.parse_args(argv))
    except UniMoeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _parser(*, add_help: bool) -> argparse.ArgumentParser:
    told = "\n".join(f"  {name:8} {text}" for name, text in QUESTIONS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"How fast ours is beside its peers.\n\nquestions:\n{told}",
        epilog="`python -m benchmarks QUESTION --help` tells a question's own options, too.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=add_help,
    )
    parser.add_argument("question", choices=list(QUESTIONS), metavar="QUESTION")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the answer to this file")
    parser.add_argument("--rounds", type=_positive, default=ROUNDS, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=_positive, default=1, help="default: %(default)s")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where it is")
    parser.add_argument(
        "--burst-s", type=float, default=0.2, help="seconds of each in a round: %(default)s"
    )
    parser.add_argument(
        "--heap-gb", type=float, default=2.0, help="a grown heap to begin with: %(default)s"
    )
    parser.add_argument("--tuned-only", action="store_true", help="without peers as shipped")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _environment(options: argparse.Namespace) -> None:
    """Say what libraries read once, when they are imported."""
    values = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "OMP_NUM_THREADS": str(options.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    if options.device == "cpu":
        values["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.update(values)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r".*deterministic.*")


def _run(question: Any, options: argparse.Namespace) -> int:  # noqa: ANN401 - a module
    from benchmarks import answers, machine
    from benchmarks.places import settle
    from benchmarks.setup import Setup
    from uni_moe import platform

    setup = Setup(
        rounds=options.rounds,
        seed=options.seed,
        threads=options.threads,
        device=options.device or platform.device().type,
        burst_s=options.burst_s,
        tuned_only=options.tuned_only,
    )
    before = machine.load()
    routes = settle(setup.threads, options.heap_gb)
    told = machine.hardware()
    print(f"{told['processor']}, {told['cores']} cores, torch {told['torch']}; {setup.clock}")
    cases = []
    for case in question.answer(setup, options):
        print(f"\n{case}", flush=True)
        cases.append(case.to_json())
    if options.json is not None:
        answer = {
            "machine": told,
            "clock": str(setup.clock),
            "load_average": [before, machine.load()],
            "routes": routes,
            "rounds": setup.rounds,
            "seed": setup.seed,
            "cases": cases,
        }
        answers.add_to(options.json, options.question, answer)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
