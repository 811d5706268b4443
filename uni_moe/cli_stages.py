"""The command's words for stages: one by one, or started on many processes.

Heavy imports happen inside, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
from dataclasses import asdict

from uni_moe import launch
from uni_moe.alone import end_with_starter, only_one
from uni_moe.artifacts import Layout
from uni_moe.cli_process import quiet
from uni_moe.command import Command
from uni_moe.config import load_params
from uni_moe.machine import NAMED, TOLD, Machine, load_machine
from uni_moe.records import MEDIA_KINDS, MODALITIES

# stage -> the function that runs it, and the items it may have behind the @
STAGES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "ingest": ("uni_moe.data.ingest:ingest", (), "read the sources, measure media"),
    "validate": ("uni_moe.data.contract:validate", (), "hold samples to the contract"),
    "prepare": ("uni_moe.data.corpus:prepare", MODALITIES, "make one modality's corpus"),
    "foundation": (
        "uni_moe.train.foundation:train_foundation",
        ("image", "audio", "speech", "language"),
        "adopt or train one part of the foundation",
    ),
    "align": ("uni_moe.train.phases:align", ("image", "audio", "speech"), "phase 1: a connector"),
    "experts": ("uni_moe.train.phases:experts", MEDIA_KINDS, "phase 2: one expert"),
    "assemble": ("uni_moe.train.assemble:assemble", (), "experts into the mixture"),
    "tune": ("uni_moe.train.phases:tune", (), "phase 3: LoRA on the mixture"),
    "evaluate": ("uni_moe.evaluate.harness:evaluate", (), "judge the tuned model"),
}
PHASES = ("align", "experts", "tune")  # they train in many processes where machine.yaml says so


def add_words(command: Command) -> None:
    """Add every stage to the parser, and the word that launches a phase; `command` makes one."""
    start = command(
        "launch", _launch, "start a phase as machine.yaml says; on a further node, join"
    )
    phases = [f"{stage}@{item}" for stage in PHASES for item in STAGES[stage][1]]
    start.add_argument("phase", choices=[*phases, "tune"], metavar="PHASE")
    start.add_argument("--print", action="store_true", help="say the command, start nothing")
    start.add_argument("--json", action="store_true", help="the command as JSON; starts nothing")
    for stage, (_, items, text) in STAGES.items():
        sub = command(stage, _stage, f"stage: {text}")
        sub.set_defaults(stage=stage, item=None)
        if items:
            sub.add_argument("item", choices=items)
        for item in items:
            each = command(f"{stage}@{item}", _stage, f"{text}: {item}")
            each.set_defaults(stage=stage, item=item)


def _stage(arguments: argparse.Namespace) -> None:
    layout = Layout(arguments.workspace.resolve())
    params = load_params(layout.params)
    machine = load_machine(layout.root)
    name = arguments.stage + (f"@{arguments.item}" if arguments.item else "")
    quiet(params)
    end_with_starter(launched=launch.is_launched())
    if _starts_launcher(arguments.stage, machine):
        launch.launch(machine, _words(layout, name))
        return
    if arguments.stage in PHASES:
        launch.check_size(machine)
    else:
        launch.check_alone(name)
    if launch.is_launched():  # before what takes seconds to import
        launch.end_in_order()
    from uni_moe.output import keep_output
    from uni_moe.runs import follow_run, start_run
    from uni_moe.stage import StageContext

    module, _, function = STAGES[arguments.stage][0].partition(":")
    call = getattr(importlib.import_module(module), function)
    if not launch.here().is_first:
        call(StageContext(name, layout, params, follow_run(layout, name), machine))
        return
    alarms = {"telemetry": params.section("telemetry")} if arguments.stage in PHASES else {}
    with (
        only_one(layout, name),
        start_run(layout, name, {"seed": params.seed, **alarms}) as run,
        keep_output(run.folder),
    ):
        run.event(TOLD, **asdict(machine))
        call(StageContext(name, layout, params, run, machine))


def _starts_launcher(stage: str, machine: Machine) -> bool:
    return stage in PHASES and machine.launcher != "none" and not launch.is_launched()


def _words(layout: Layout, name: str) -> list[str]:
    """Return a stage's own command line; it names the profile, which other nodes need as well."""
    named = os.environ.get(NAMED)
    return ["--workspace", str(layout.root), *(["--machine", named] if named else []), name]


def _launch(arguments: argparse.Namespace) -> None:
    layout = Layout(arguments.workspace.resolve())
    machine = load_machine(layout.root)
    if arguments.print or arguments.json:
        words = _words(layout, arguments.phase)
        by_launcher = machine.launcher != "none"
        line = launch.shell_words(machine, words) if by_launcher else ["uni-moe", *words]
        print(json.dumps(line) if arguments.json else shlex.join(line))
        return
    arguments.stage, _, item = arguments.phase.partition("@")
    arguments.item = item or None
    _stage(arguments)
