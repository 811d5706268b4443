"""The command's words for ledgers: check, show, prove.

Heavy imports happen inside, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from uni_moe.artifacts import CARD, Layout, read_card
from uni_moe.command import Command
from uni_moe.errors import DataError, LineageError
from uni_moe.records import MEDIA_KINDS, Card


def add_words(command: Command) -> None:
    """Add the words to the parser; `command` makes one."""
    ledger = command("ledger", _check, "which sample was learned from at which step")
    words = ledger.add_subparsers(metavar="WORD", required=True)
    for word, call, text in (
        ("check", _check, "recompute ledgers from seed, params and corpus, and compare"),
        ("show", _show, "the steps that learned from a sample"),
        ("prove", _prove, "a short proof that a ledger holds a sample, for its root"),
    ):
        sub = words.add_parser(word, help=text, description=text)
        sub.set_defaults(call=call)
        if word != "check":
            sub.add_argument("sample", help="a key, or the beginning of an id (8 letters or more)")
        sub.add_argument(
            "names",
            nargs="*",
            metavar="NAME",
            help="a phase (tune, align@image) or a registered model; default: every phase here",
        )
        sub.add_argument("--json", action="store_true", help="as JSON")


def _check(arguments: argparse.Namespace) -> int:
    from uni_moe.train.ledger_check import check

    layout = Layout(arguments.workspace.resolve())
    found = []
    for folder in _folders(layout, arguments.names):
        found.append(check(layout, folder))
        if not arguments.json:
            print(found[-1].text(), flush=True)
    if arguments.json:
        print(json.dumps([one.to_json() for one in found], indent=1))
    return LineageError.exit_code if any(one.problems for one in found) else 0


def _show(arguments: argparse.Namespace) -> None:
    layout = Layout(arguments.workspace.resolve())
    found = [row for row, _, _ in _exposures(layout, arguments)]
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for row in found:
        cut = f", {row['truncated']} positions cut away" if row["truncated"] else ""
        print(
            f"{row['stage']}  step {row['step']}  slot {row['slot']}  rank {row['rank']}  "
            f"{row['key']}  {row['tokens']} tokens{cut}"
        )


def _prove(arguments: argparse.Namespace) -> None:
    from uni_moe.data.exposures import leaf_of, ledger_of
    from uni_moe.merkle import Paths, leads_to

    layout = Layout(arguments.workspace.resolve())
    proofs: list[dict[str, Any]] = []
    every: dict[Path, Paths] = {}
    for row, folder, card in _exposures(layout, arguments):
        if folder not in every:
            every[folder] = Paths(leaf_of(entry) for entry in ledger_of(folder))
        paths = every[folder]
        leaf, path = paths.leaves[row["index"]], paths.of(row["index"])
        place: dict[str, Any] = {"index": row["index"], "size": len(paths.leaves)}
        root = card.results["ledger"]["root"]
        if not leads_to(bytes.fromhex(root), leaf=leaf, path=path, **place):
            raise LineageError(
                f"The ledger of {row['stage']} does not lead to the root in its card.",
                cause="the file was changed since.",
                remedy="`uni-moe ledger check` names the first entry that differs.",
            )
        told = {"leaf": leaf.hex(), "path": [step.hex() for step in path]}
        proofs.append({"entry": row, "card": card.id, "root": root, **place, **told})
    if arguments.json:
        print(json.dumps(proofs, indent=1))
        return
    for one in proofs:
        row = one["entry"]
        print(
            f"{row['stage']}  step {row['step']}  {row['key']}: entry {one['index']} of "
            f"{one['size']}, {len(one['path'])} hashes lead to the root {one['root']}"
        )


def _exposures(
    layout: Layout, arguments: argparse.Namespace
) -> Iterator[tuple[dict[str, Any], Path, Card]]:
    """Return the exposures of a sample as rows, each with its artifact's folder and card."""
    from uni_moe.data.exposures import find, ledger_facts

    seen = False
    for folder in _folders(layout, arguments.names):
        card = read_card(folder)
        ledger_facts(card, folder)
        for index, entry in find(folder, arguments.sample):
            seen = True
            yield {"stage": card.stage, "index": index, **entry._asdict()}, folder, card
    if not seen:
        raise DataError(
            f"No ledger here has seen {arguments.sample!r}.",
            cause="it was held out, refused or not reached, or no sample has this key or id.",
            remedy="keys stand in the manifests, `artifacts/samples/*/manifest.parquet`.",
        )


def _folders(layout: Layout, names: Sequence[str]) -> list[Path]:
    """Return the artifacts that are named: phases by their stages, models by the registry."""
    phases = _phases(layout)
    if names:
        return [phases[name] if name in phases else _registered(layout, name) for name in names]
    there = [folder for folder in phases.values() if (folder / CARD).is_file()]
    if not there:
        raise LineageError(
            f"No phase has been trained in {layout.root}.",
            cause="there is no artifact of align, experts or tune.",
            remedy="run `uni-moe run` or `dvc repro` first, or name a registered model.",
        )
    return there


def _phases(layout: Layout) -> dict[str, Path]:
    return {
        **{f"align@{name}": layout.aligned(name) for name in ("image", "audio", "speech")},
        **{f"experts@{n}": layout.expert(n) for n in MEDIA_KINDS},
        "tune": layout.model,
    }


def _registered(layout: Layout, name: str) -> Path:
    from uni_moe.registry.read import find

    return find(layout, name).model_folder
