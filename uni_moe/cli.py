"""The command `uni-moe`: parse, call, print, exit code. It stands above everything.

What its words do lies beside it, by theme. Heavy imports happen inside them, so that help and
errors come at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from uni_moe import (
    cli_audit,
    cli_dashboard,
    cli_data,
    cli_features,
    cli_housekeeping,
    cli_ledger,
    cli_models,
    cli_operate,
    cli_questions,
    cli_registry,
    cli_remote,
    cli_run,
    cli_stages,
    cli_verify,
    cli_workspace,
    errors,
    launch,
)
from uni_moe.errors import UniMoeError
from uni_moe.machine import NAMED

_THEMES = (
    cli_run,
    cli_operate,
    cli_dashboard,
    cli_workspace,
    cli_registry,
    cli_questions,
    cli_audit,
    cli_verify,
    cli_data,
    cli_models,
    cli_ledger,
    cli_features,
    cli_remote,
    cli_housekeeping,
    cli_stages,
)
_BUG = 70  # sysexits.h: an internal software error
_STOPPED = 130  # as a shell says of SIGINT
_REPORT = (
    "  cause:  a mistake in this program, not in yours.\n"
    "  remedy: report it with the lines above, params.yaml and the newest folder in runs/."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.machine is not None:
        os.environ[NAMED] = str(arguments.machine.resolve())  # what we start reads it, too
    try:
        done: int | None = arguments.call(arguments)
    except UniMoeError as error:
        return _tell(error)
    except KeyboardInterrupt as error:
        return _stopped(error)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last door
        known = errors.of_disk(error) or launch.of_others(error)
        if known is not None:
            return _tell(known)
        traceback.print_exc()  # what is left is our own mistake
        print(f"error: {type(error).__name__}: {error}\n{_REPORT}", file=sys.stderr)
        return _BUG
    return done or 0


def _stopped(error: KeyboardInterrupt) -> int:
    """Say that a person or a launcher ended us; return the exit code."""
    said = "stopped; the same command goes on from here"
    if isinstance(error, launch.ToldToEnd):
        said = f"error: {launch.told_to_end()}"
    print(f"{launch.prefix()}{said}", file=sys.stderr, flush=True)
    return _STOPPED


def _tell(error: UniMoeError) -> int:
    """Say an error in its three lines, on every rank at once; return its exit code."""
    if os.environ.get("UNI_MOE_DEBUG"):
        traceback.print_exc()
    print(f"{launch.prefix()}error: {error}", file=sys.stderr, flush=True)
    launch.end_after_the_first()
    return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="uni-moe",
        description="Train, retrain, judge and audit Uni-MoE models.",
        epilog="Stages run one by one as `uni-moe STAGE[@ITEM]`; `uni-moe run` runs what must run.",
    )
    parser.add_argument(
        "--workspace", type=Path, default=Path(), metavar="DIR", help="default: this folder"
    )
    parser.add_argument(
        "--machine", type=Path, metavar="FILE", help="default: the workspace's machine.yaml"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, call: Callable[..., int | None], text: str) -> argparse.ArgumentParser:
        if "@" in name:  # the list names stages without their items
            sub = commands.add_parser(name, description=text)
        else:
            sub = commands.add_parser(name, description=text, help=text)
        sub.set_defaults(call=call)
        return sub

    for theme in _THEMES:
        theme.add_words(command)
    return parser
