"""The command's words for registered models: ask one, list them, keep the index.

Heavy imports happen inside, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from uni_moe.artifacts import Layout
from uni_moe.cli_process import quiet
from uni_moe.command import Command
from uni_moe.config import load_params
from uni_moe.errors import ConfigError
from uni_moe.records import MEDIA_KINDS


def add_words(command: Command) -> None:
    """Add the words to the parser; `command` makes one."""
    ask = command("ask", _ask, "ask the champion about a picture, film, sound or speech")
    ask.add_argument("question")
    ask.add_argument("--model", type=Path, metavar="FOLDER", help="ask this one, not the champion")
    ask.add_argument("--max-new-tokens", type=int, metavar="N", help="default: as in params.yaml")
    for kind in MEDIA_KINDS:
        ask.add_argument(f"--{kind}", type=Path, action="append", default=[], metavar="FILE")
    ask.add_argument("--json", action="store_true", help="as JSON")
    command("answer-worker", _answer_worker, "answer questions given as JSON lines, one by one")
    models = command("models", _models, "list registered models and the champion")
    models.add_argument("--json", action="store_true", help="as JSON")
    command("index", _index, "import cards and run folders into the database")
    registry = command("registry", _show, "the database itself: show, upgrade, rebuild")
    words = registry.add_subparsers(metavar="WORD", required=True)
    show = words.add_parser("show", help="where it is, its version, rows and size")
    show.set_defaults(call=_show)
    show.add_argument("--json", action="store_true", help="as JSON")
    upgrade = words.add_parser("upgrade", help="bring one of an older version to this code's")
    upgrade.set_defaults(call=_upgrade)
    rebuild = words.add_parser("rebuild", help="make it again from cards and run folders")
    rebuild.set_defaults(call=_rebuild)
    example = words.add_parser("example", help="make a workspace of runs that nobody trained")
    example.set_defaults(call=_example)
    example.add_argument("folder", type=Path)
    example.add_argument("--runs", type=int, default=1_000, help="default: %(default)s")
    example.add_argument("--points", type=int, default=1_000_000, help="default: %(default)s")
    example.add_argument("--nodes", type=int, help="artifacts; default: those that the runs make")
    example.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    example.add_argument(
        "--running", action="store_true", help="let one more run go on until it is interrupted"
    )


def _ask(arguments: argparse.Namespace) -> None:
    if arguments.model is not None:
        folder, name, most = _any_model(arguments)
    else:
        folder, name, most = _champion(arguments)
    from uni_moe.evaluate.ask import answer

    said = answer(
        folder,
        arguments.question,
        images=arguments.image,
        videos=arguments.video,
        audio=arguments.audio,
        speech=arguments.speech,
        max_new_tokens=arguments.max_new_tokens or most,
    )
    print(json.dumps({"model": name, "answer": said}) if arguments.json else said)


def _answer_worker(arguments: argparse.Namespace) -> None:
    quiet(load_params(_layout(arguments).params))
    from uni_moe.evaluate.answer_worker import serve

    serve()


def _champion(arguments: argparse.Namespace) -> tuple[Path, str, int]:
    """Return the champion's folder, its name, and how long it may answer."""
    layout = Layout(arguments.workspace.resolve())
    params = load_params(layout.params)
    quiet(params)
    from uni_moe.registry.read import champion

    current = champion(layout)
    if current is None:
        raise ConfigError(
            "There is no champion to ask.",
            cause="no model of this workspace has passed the gate.",
            remedy="run `uni-moe run`, look at `uni-moe models` for the verdicts, or ask another "
            "model by --model.",
        )
    return current.folder / "model", current.model, params.evaluate.max_new_tokens


def _any_model(arguments: argparse.Namespace) -> tuple[Path, str, int]:
    """Return the same of a model's folder; no workspace is needed, but the model must be whole."""
    if arguments.max_new_tokens is None:
        raise ConfigError(
            "--model needs --max-new-tokens.",
            cause="no params.yaml says how long this model may answer.",
            remedy="add, say, --max-new-tokens 64.",
        )
    from uni_moe.checkpoints.whole import read_config, whole_model

    whole_model(arguments.model, read_config(arguments.model))
    return arguments.model, str(arguments.model), arguments.max_new_tokens


def _models(arguments: argparse.Namespace) -> None:
    from uni_moe.audit_log import read_log
    from uni_moe.registry.read import models, models_text
    from uni_moe.registry.removals import removals

    layout = _layout(arguments)
    found, removed = models(layout), removals(read_log(layout).entries)
    if arguments.json:
        told = [{**one.to_json(), "removed": removed.get(one.model)} for one in found]
        print(json.dumps(told, indent=1))
    else:
        print(models_text(found, removed))


def _index(arguments: argparse.Namespace) -> None:
    from uni_moe.registry.indexing import index

    _tell(index(_layout(arguments)))


def _rebuild(arguments: argparse.Namespace) -> None:
    from uni_moe.registry.indexing import rebuild

    _tell(rebuild(_layout(arguments)))


def _upgrade(arguments: argparse.Namespace) -> None:
    from uni_moe.registry.indexing import upgrade

    print(upgrade(_layout(arguments)).text())


def _example(arguments: argparse.Namespace) -> None:
    from datetime import UTC, datetime

    from uni_moe.registry.example.making import Sizes, make_example
    from uni_moe.registry.example.running import keep_running

    folder = arguments.folder.resolve()
    sizes = Sizes(arguments.runs, arguments.points, arguments.nodes, arguments.seed)
    _tell(make_example(folder, sizes, datetime.now(UTC), lambda text: print(text, flush=True)))
    print(f"\nNext:\n  uni-moe --workspace {folder} dashboard")
    if arguments.running:
        print("one run goes on, a step a second; interrupt this command to end it", flush=True)
        with suppress(KeyboardInterrupt):
            keep_running(Layout(folder), seed=arguments.seed)


def _show(arguments: argparse.Namespace) -> None:
    from uni_moe.registry.showing import show

    shown = show(_layout(arguments))
    print(json.dumps(shown.to_json(), indent=1) if arguments.json else shown.text())


def _tell(counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        print(f"{name:14} {count}")


def _layout(arguments: argparse.Namespace) -> Layout:
    return Layout(arguments.workspace.resolve())
