"""The command's words for whole models: size, import, export, surgery.

Heavy imports happen inside, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uni_moe.artifacts import Layout
from uni_moe.command import Command
from uni_moe.config import load_params
from uni_moe.errors import ConfigError, LineageError
from uni_moe.model.describing import telling_of
from uni_moe.workspace import recipe_file

if TYPE_CHECKING:
    from uni_moe.model.config import UniMoeConfig


def add_words(command: Command) -> None:
    """Add the words to the parser; `command` makes one."""
    size = command("size", _size, "count a model's parameters, before anything of it is there")
    of = size.add_mutually_exclusive_group()
    of.add_argument("model", type=Path, nargs="?", help="a model's folder; default: params.yaml")
    of.add_argument("--recipe", metavar="NAME", help="what a recipe would make")
    size.add_argument("--json", action="store_true", help="as JSON")
    bring = command("import-official", _import_official, "make a published checkpoint one of ours")
    bring.add_argument(
        "folder", type=Path, help="the checkpoint, what was trained on --base, or BEATs' file"
    )
    bring.add_argument("--base", type=Path, help="the folder of the base weights")
    bring.add_argument("--vision-tower", type=Path, metavar="DIR", help="CLIP's folder")
    bring.add_argument("--audio-tower", type=Path, metavar="PATH", help="Whisper's folder or BEATs")
    bring.add_argument(
        "--expert", type=Path, action="append", default=[], metavar="FILE", help="in slot order"
    )
    bring.add_argument("--out", type=Path, required=True)
    bring.add_argument("--json", action="store_true", help="as JSON")
    give = command("export-official", _export_official, "write a model in the published layout")
    give.add_argument("model", type=Path)
    give.add_argument("--out", type=Path, required=True)
    give.add_argument(
        "--style", choices=("experts", "deepspeed"), default="experts", help="4- or 8-expert names"
    )
    give.add_argument("--absolute", action="store_true", help="name its encoders by full paths")
    give.add_argument("--json", action="store_true", help="as JSON")
    _surgery_words(command("surgery", _surgery, "operate on a model's experts, with a receipt"))


def _surgery_words(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", type=Path)
    sub.add_argument("--out", type=Path, required=True)
    sub.add_argument("--json", action="store_true", help="the receipt, as JSON")
    sub.add_argument("--seed", type=int, default=0, help="of new router rows")
    one = sub.add_mutually_exclusive_group(required=True)
    one.add_argument("--permute", metavar="2,0,1", help="slots in their new order")
    one.add_argument("--clone", type=int, metavar="SLOT")
    one.add_argument("--add", metavar="DONOR[#SLOT]", help="a model folder or an expert's file")
    one.add_argument("--replace", nargs=2, metavar=("SLOT", "DONOR[#SLOT]"))
    one.add_argument("--remove", type=int, metavar="SLOT")
    one.add_argument("--merge", type=Path, metavar="ADAPTER", help="a folder in peft's layout")
    one.add_argument("--undo", action="store_true", help="by the receipt in the model")
    one.add_argument("--upcycle", metavar="base,FILE,…", help="slots of a dense model's mixture")
    sub.add_argument("--layers", help="of --upcycle: a layout or 0,2,4; default: interval")
    sub.add_argument("--top-k", type=int, metavar="K", help="of --upcycle: experts for each token")


def _size(arguments: argparse.Namespace) -> None:
    from uni_moe.model.architectures import size_of

    if arguments.model is not None:
        file, remedy = arguments.model / "config.json", "take the one saved with the weights."
    else:
        named = arguments.recipe
        file = recipe_file(named) if named else Layout(arguments.workspace.resolve()).params
        remedy = "correct `foundation` and `model` in it."
    with telling_of(file, remedy):
        size = size_of(_described(arguments, file))
    print(json.dumps(size.to_json(), indent=1) if arguments.json else size.text())


def _described(arguments: argparse.Namespace, file: Path) -> UniMoeConfig:
    """Return the configuration of a model's folder, or of a recipe's or workspace's params."""
    if arguments.model is not None:
        from uni_moe.checkpoints.whole import read_config

        return read_config(arguments.model)
    from uni_moe.train.planned import planned_config

    return planned_config(load_params(file), arguments.workspace.resolve())


def _import_official(arguments: argparse.Namespace) -> None:
    if arguments.folder.is_file():
        _check_alone(arguments)
        return _import_beats(arguments)
    from uni_moe.checkpoints.published_import import import_published, plan_of

    folders = [arguments.folder] if arguments.base is None else [arguments.base, arguments.folder]
    found = plan_of(
        folders,
        vision_tower=arguments.vision_tower,
        audio_tower=arguments.audio_tower,
        experts=arguments.expert,
    )
    if not arguments.json:
        print(found.text(), flush=True)
    try:
        sizes = import_published(found, arguments.out)
    except LineageError:
        if arguments.json:  # every key is told where it is refused, too
            print(json.dumps(found.receipt(), indent=1), flush=True)
        raise
    print(
        json.dumps(found.receipt() | sizes, indent=1)
        if arguments.json
        else _wrote(arguments.out, sizes)
    )
    return None


def _check_alone(arguments: argparse.Namespace) -> None:
    """Refuse what a single file cannot be imported with, instead of leaving it out in silence."""
    given = {
        "--base": arguments.base,
        "--vision-tower": arguments.vision_tower,
        "--audio-tower": arguments.audio_tower,
        "--expert": arguments.expert,
    }
    if strange := [name for name, value in given.items() if value]:
        raise ConfigError(
            f"{arguments.folder} is a file, and is imported without {', '.join(strange)}.",
            cause="a file is BEATs' checkpoint alone; the rest belongs to a model's folder.",
            remedy="leave it out, or give the folder of the model.",
        )


def _import_beats(arguments: argparse.Namespace) -> None:
    from uni_moe.checkpoints.published_beats import BeatsFile, import_beats

    file = BeatsFile(arguments.folder)
    plan = file.plan()
    if not arguments.json:
        print("\n".join(plan.lines(file.stored())), flush=True)
    sizes = import_beats(file, arguments.out)
    if arguments.json:
        told = {"used": plan.places(), "ignored": dict(plan.ignored)}
        print(json.dumps(told | sizes, indent=1))
    else:
        print(_wrote(arguments.out, sizes))


def _export_official(arguments: argparse.Namespace) -> None:
    from uni_moe.checkpoints.descent import note
    from uni_moe.checkpoints.published_export import export_published

    sizes = export_published(
        arguments.model, arguments.out, style=arguments.style, absolute=arguments.absolute
    )
    note(Layout(arguments.workspace.resolve()), arguments.out)
    if arguments.json:
        print(json.dumps(sizes, indent=1))
        return
    if not arguments.absolute:
        print(
            "note: config.json names the encoders relative to this folder; the published loader "
            f"looks for them from where it is started: `cd {arguments.out}`, or --absolute"
        )
    print(_wrote(arguments.out, sizes))


def _wrote(out: Path, sizes: Mapping[str, int]) -> str:
    return f"wrote {out}: {sizes['files']} shard(s), {sizes['size_bytes']} bytes"


def _surgery(arguments: argparse.Namespace) -> None:
    from uni_moe.model.assembly import RECEIPT

    if not arguments.upcycle and (arguments.layers or arguments.top_k is not None):
        raise ConfigError(
            "--layers and --top-k belong to --upcycle.",
            cause="the other operations keep a model's sparse layers and experts for each token.",
            remedy="leave them out.",
        )
    from uni_moe.checkpoints.descent import note

    receipt = _operated(arguments)
    note(Layout(arguments.workspace.resolve()), arguments.out)
    if arguments.json:
        print(json.dumps(receipt, indent=1))
        return
    for line in receipt.get("notes", ()):
        print(f"note: {line}")
    if receipt["inverse"] is None:
        print("it cannot be undone from the result alone")
    else:
        print(f"undo: uni-moe surgery {arguments.out} --undo --out FOLDER")
    print(f"wrote {arguments.out}; {RECEIPT} in it says where every changed tensor comes from")


def _operated(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Do what is asked for and return the receipt."""
    from uni_moe.checkpoints import operating, reshaping

    model, out = arguments.model, arguments.out
    if arguments.undo:
        return operating.undo(model, out)
    if arguments.merge:
        return reshaping.merge_adapter(model, arguments.merge, out)
    if arguments.upcycle:
        layers = arguments.layers or "interval"
        return reshaping.upcycle(
            model,
            arguments.upcycle.split(","),
            _numbers(layers) if layers[:1].isdecimal() else layers,
            seed=arguments.seed,
            top_k=arguments.top_k,
            out=out,
        )
    plan, donors = operating.plan_operation(
        model,
        permute=_numbers(arguments.permute) if arguments.permute else None,
        clone=arguments.clone,
        add=arguments.add,
        replace=arguments.replace,
        remove=arguments.remove,
        seed=arguments.seed,
    )
    if not arguments.json:
        print(plan.text())
    return operating.operate_on(model, plan, donors, out)


def _numbers(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise ConfigError(
            f"{text!r} is no list of slots or layers.",
            cause="numbers from 0, with commas between them, are asked for.",
            remedy="write it like 2,0,1,3.",
        )
    return [int(word) for word in words]
