"""The command's words for data: samples that go."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from uni_moe.artifacts import Layout
from uni_moe.config import load_params
from uni_moe.errors import ConfigError
from uni_moe.runs import user


def add_words(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add these words to the parser; `command` makes one."""
    remove = command("remove", _remove, "take samples out for good, and leave the others in place")
    remove.add_argument("keys", nargs="*", metavar="KEY", help="source/name")
    remove.add_argument(
        "--subject", action="append", default=[], metavar="NAME", help="all of one person"
    )
    remove.add_argument("--why", default="by hand", metavar="TEXT", help="kept in the audit log")


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
    from uni_moe.removing import Wish, take_out

    wish = Wish(arguments.keys, user(), arguments.why, arguments.subject)
    gone = take_out(layout, params, wish)
    for one in gone:
        print(one.key)
    print(
        f"{len(gone)} sample(s) taken out; {layout.root / params.raw / FILE} keeps their places\n\n"
        "Next: delete them from their source, then `uni-moe run`.\n"
        "Versions and caches that were made with them are left as they are."
    )
