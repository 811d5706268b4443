"""The command's words for data: samples that go."""

from __future__ import annotations

import argparse

from uni_moe.alone import nobody_else
from uni_moe.artifacts import Layout
from uni_moe.command import Command
from uni_moe.config import load_params
from uni_moe.errors import ConfigError


def add_words(command: Command) -> None:
    """Add these words to the parser; `command` makes one."""
    remove = command("remove", _remove, "take samples out for good, and leave the others in place")
    remove.add_argument("keys", nargs="*", metavar="KEY", help="source/name")
    remove.add_argument(
        "--subject", action="append", default=[], metavar="NAME", help="all of one person"
    )


def _remove(arguments: argparse.Namespace) -> None:
    if not arguments.keys and not arguments.subject:
        raise ConfigError(
            "Nothing says which samples shall go.",
            cause="neither a key nor a subject is given.",
            remedy="write `uni-moe remove SOURCE/NAME`, or `uni-moe remove --subject NAME`.",
        )
    layout = Layout(arguments.workspace.resolve())
    params = load_params(layout.params)
    from uni_moe.data.tombstones import FILE
    from uni_moe.removing import clean_up, take_out

    with nobody_else(layout):
        gone = take_out(layout, params, arguments.keys, arguments.subject)
        kept_in = layout.root / params.raw / FILE
        print("".join(f"{one.key}\n" for one in gone), end="")
        print(f"{len(gone)} sample(s) taken out; {kept_in} keeps their places")
        cleared, left = clean_up(layout, params)
    for said in cleared:
        print(f"cleared: {said}")
    if left:
        print("\nWhat was taken out is still in:")
    for leftover in left:
        print(f"  - {leftover.what}\n      {leftover.remedy}")
