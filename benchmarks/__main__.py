"""The command `python -m benchmarks QUESTION`: measure, print tables, keep them as JSON.

It returns 0 where every bar of the question is kept, and 1 where one is missed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uni_moe.errors import ConfigError, UniMoeError

QUESTIONS = {
    "layer": "the sparse layer beside a dense one and the layers of others",
    "lora": "low-rank adapters on experts beside peft's own ways",
    "decode": "generation beside transformers' and beside what memory allows",
    "step": "an optimizer step of tuning beside the way of the published code",
    "large": "the same at the paper's size, on a GPU",
    "idle": "what idle connectors and experts take of a step",
    "watch": "what the ledger and the telemetry take of a step",
    "size": "the paper's models on the meta device: parameters, time, memory",
    "memory": "memory that a training is said to need beside what it holds",
    "features": "what keeping features of frozen encoders is worth",
    "layouts": "gradients of two ranks beside one process, whatever each of them meets",
    "questions": "lineage and impact in a large index: how long an answer takes",
    "repro": "what DVC takes to find nothing to do at a million samples",
    "kills": "stages killed at random instants: do they end in the same bytes",
    "registry": "the index beside MLflow's store, as durable as that",
    "points": "an index of many metric points: filling it, and questions to it",
    "dashboard": "pages of ten thousand runs in a browser, beside those of MLflow",
}
ROUNDS = 9
MISSED = 1
RESULTS = Path(__file__).parent / "results"


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
    told = "\n".join(f"  {name:9} {text}" for name, text in QUESTIONS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"How fast ours is beside its peers.\n\nquestions:\n{told}",
        epilog="`python -m benchmarks QUESTION --help` tells a question's own options, too.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=add_help,
    )
    parser.add_argument("question", choices=list(QUESTIONS), metavar="QUESTION")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the answer to this file")
    parser.add_argument(
        "--keep", action="store_true", help="add it to benchmarks/results/MACHINE.json, too"
    )
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
        "PYTHONWARNINGS": "ignore::FutureWarning",  # of the process beside this one
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS is not deterministic
    }
    if options.device == "cpu":
        values["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.update(values)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r".*deterministic.*")


def _run(question: Any, options: argparse.Namespace) -> int:  # noqa: ANN401 - a module
    from benchmarks import kept, machine
    from benchmarks.places import settle
    from benchmarks.setup import Setup
    from uni_moe.runs import commit

    setup = Setup(
        rounds=options.rounds,
        seed=options.seed,
        threads=options.threads,
        device=_device(options.device),
        burst_s=options.burst_s,
        tuned_only=options.tuned_only,
    )
    before = machine.load()
    routes = settle(setup.threads, options.heap_gb)
    name, told = machine.name(), machine.hardware()
    print(f"{name}, torch {told['torch']}")
    cases, missed = [], []
    for case in question.answer(setup, options):
        print(f"\n{case.text(name)}", flush=True)
        cases.append(case.to_json(name))
        missed += case.missed(name)
    answer = {
        "machine": told,
        "commit": commit(),
        "load_average": [before, machine.load()],
        "routes": routes,
        "rounds": setup.rounds,
        "seed": setup.seed,
        "tuned_only": setup.tuned_only,
        "missed": missed,
        "cases": cases,
    }
    file = RESULTS / f"{name}.json" if options.keep else None
    for one in (options.json, file):
        if one is not None:
            kept.add_to(one, options.question, answer)
    for one in missed:
        print(f"missed on {name}: {one}", file=sys.stderr)
    return MISSED if missed else 0


def _device(asked: str | None) -> str:
    """Return where it is measured.

    Raises:
        ConfigError: an accelerator is asked for that torch does not see.
    """
    from uni_moe import platform

    found = platform.device().type
    if asked not in (None, found):
        raise ConfigError(
            f"{asked} is asked for, but torch sees only {found}.",
            cause="this machine has no such accelerator, or its torch is built without it.",
            remedy="leave --device out, or say --device cpu.",
        )
    return found


if __name__ == "__main__":
    raise SystemExit(main())
