"""The command's word that proves a model: `verify`, in four grades.

Heavy imports happen inside, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from functools import cache, partial

from uni_moe.artifacts import Layout
from uni_moe.command import Command
from uni_moe.runs import user

_INTERVALS = 8


def add_words(command: Command) -> None:
    """Add the word to the parser; `command` makes one."""
    verify = command("verify", _verify, "prove a registered model: hashes, data, training, all")
    verify.add_argument("model", nargs="?", help="version or id; default: the champion")
    verify.add_argument(
        "--grade",
        type=int,
        choices=range(4),
        default=0,
        help="0 hashes and audit log, 1 the data stages again, 2 intervals of training again, "
        "3 everything again from the sources; default: %(default)s",
    )
    verify.add_argument(
        "--intervals",
        type=_count,
        default=_INTERVALS,
        metavar="K|all",
        help="how many grade 2 draws; default: %(default)s",
    )
    verify.add_argument(
        "--seed", type=int, metavar="N", help="what grade 2 draws by; default: nobody knows before"
    )
    verify.add_argument("--json", action="store_true", help="as JSON")


def _count(text: str) -> int | None:
    """Return a number of intervals; None is all of them."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither `all` nor a number from 1 on")
    return int(text)


def _verify(arguments: argparse.Namespace) -> int:
    from flows.restore import moved_since
    from uni_moe.verify.verifying import Wish, verify

    seed = secrets.randbits(31) if arguments.seed is None else arguments.seed
    layout = Layout(arguments.workspace.resolve())
    done = verify(
        layout,
        arguments.model,
        Wish(arguments.grade, arguments.intervals, seed),
        who=user(),
        say=lambda line: print(line, file=sys.stderr, flush=True),
        moved=cache(partial(moved_since, layout)),
    )
    print(json.dumps(done.to_json(), indent=1) if arguments.json else done.text)
    return done.exit_code
