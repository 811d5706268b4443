"""The command's words that ask: where a model comes from, who was live, what a sample is in.

Heavy imports happen inside, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from uni_moe.artifacts import Layout
from uni_moe.command import Command
from uni_moe.errors import ConfigError, UniMoeError

YES = 1  # the exit code of a question whose answer somebody must look at


def add_words(command: Command) -> None:
    """Add the words to the parser; `command` makes one."""
    lineage = command("lineage", _lineage, "the tree from a model back to its sources")
    lineage.add_argument("model", nargs="?", help="version, id or folder; default: the champion")
    lineage.add_argument("--down", action="store_true", help="what was made from it, too")
    live = command("live", _live, "which model is or was the champion, and by which verdict")
    live.add_argument(
        "--at", metavar="TIME", help="a day of UTC, or a moment such as 2026-03-31T12:00+02:00"
    )
    impact = command("impact", _impact, "all that samples are in, and what to run without them")
    impact.add_argument("samples", nargs="*", metavar="SAMPLE", help="source/name, or an id")
    for name, text in (
        ("subject", "all samples of one person"),
        ("source", "all of a source"),
        ("license", "all under a licence"),
    ):
        impact.add_argument(f"--{name}", action="append", default=[], metavar="NAME", help=text)
    diff = command("diff", _diff, "all that differs between two models, section by section")
    diff.add_argument("a", help="version, id or folder")
    diff.add_argument("b", help="version, id or folder")
    stale = command("stale", _stale, "what no longer matches its inputs, the champion among it")
    contract = command("contract", _recheck, "registered models and the contract of today")
    words = contract.add_subparsers(metavar="WORD", required=True)
    text = "which registered models were trained on data that fail today's contract"
    again = words.add_parser("recheck", help=text, description=text)
    again.set_defaults(call=_recheck)
    for sub in (lineage, live, impact, diff, stale, again):
        sub.add_argument("--json", action="store_true", help="as JSON")


def _layout(arguments: argparse.Namespace) -> Layout:
    return Layout(arguments.workspace.resolve())


def _caught_up(arguments: argparse.Namespace) -> Layout:
    """Return a workspace whose index knows all that is here; where that cannot be, say so.

    Who may only read it, or has a broken card among the others, gets the answer of what it knows.
    """
    from uni_moe.registry.indexing import catch_up

    layout = _layout(arguments)
    try:
        catch_up(layout, data=False)
    except (UniMoeError, OSError) as error:
        why = error.what if isinstance(error, UniMoeError) else error
        print(f"note: the index may lack what came last: {why}", file=sys.stderr)
    return layout


def _say(arguments: argparse.Namespace, told: Any, text: str) -> None:  # noqa: ANN401 - JSON
    print(json.dumps(told, indent=1) if arguments.json else text)


def _lineage(arguments: argparse.Namespace) -> None:
    from uni_moe.registry.read import lineage, lineage_text

    layout = _caught_up(arguments)
    found = lineage(layout, arguments.model, down=arguments.down)
    _say(arguments, found.to_json(), lineage_text(found))


def _live(arguments: argparse.Namespace) -> int:
    from uni_moe.registry.live import live, live_text

    layout = _caught_up(arguments)
    found = live(layout, arguments.at)
    _say(arguments, found.to_json(), live_text(found))
    return 0 if found.champions else YES


def _impact(arguments: argparse.Namespace) -> int:
    from uni_moe.registry.asked import Asked
    from uni_moe.registry.impact import impact
    from uni_moe.registry.impact_text import impact_text
    from uni_moe.registry.indexing import catch_up

    asked = Asked(
        samples=tuple(arguments.samples),
        subjects=tuple(arguments.subject),
        sources=tuple(arguments.source),
        licenses=tuple(arguments.license),
    )
    if not asked.text:
        raise ConfigError(
            "Nothing says which samples are meant.",
            cause="neither a sample nor a subject, a source or a licence is given.",
            remedy="write `uni-moe impact SOURCE/NAME`, or `uni-moe impact --subject NAME`.",
        )
    layout = _layout(arguments)
    catch_up(layout)
    found = impact(layout, asked)
    _say(arguments, found.to_json(), impact_text(found))
    return YES if found.unknown else 0


def _diff(arguments: argparse.Namespace) -> int:
    from uni_moe.differing import difference, difference_text
    from uni_moe.registry.indexing import catch_up

    layout = _layout(arguments)
    if layout.store.is_dir() or layout.artifacts.is_dir():  # models lie anywhere
        catch_up(layout)
    found = difference(layout, arguments.a, arguments.b)
    _say(arguments, found.to_json(), difference_text(found))
    return YES if found else 0


def _stale(arguments: argparse.Namespace) -> int:
    from flows.dvc import plan_stages
    from uni_moe.registry.indexing import catch_up
    from uni_moe.registry.staleness import staleness

    layout = _layout(arguments)
    planned = {stage.name: stage.why for stage in plan_stages(layout.root).stages}
    catch_up(layout)
    found = staleness(layout, planned)
    _say(arguments, found.to_json(), found.text)
    return YES if found else 0


def _recheck(arguments: argparse.Namespace) -> int:
    from uni_moe.cli_process import quiet
    from uni_moe.config import load_params
    from uni_moe.recheck import recheck

    layout = _layout(arguments)
    params = load_params(layout.params)
    quiet(params)
    found = recheck(layout, params)
    _say(arguments, found.to_json(), found.text)
    return 0 if found.all_kept else YES
