"""The command `uni-moe`: parse, call, print, exit code. It stands above everything.

Heavy imports happen inside the sub-commands, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import getpass
import importlib
import json
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

from uni_moe import cli_data, cli_features, cli_ledger, cli_models, cli_remote, launch
from uni_moe.alone import end_with_starter, only_one
from uni_moe.artifacts import Layout
from uni_moe.config import Gate, Params, load_params
from uni_moe.errors import ConfigError, UniMoeError
from uni_moe.machine import Machine, load_machine
from uni_moe.records import MEDIA_KINDS, MODALITIES

if TYPE_CHECKING:
    from uni_moe.registry.gate import Verdict

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
_BUG = 70  # sysexits.h: an internal software error
_REPORT = (
    "  cause:  a mistake in this program, not in yours.\n"
    "  remedy: report it with the lines above, params.yaml and the newest folder in runs/."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        done: int | None = arguments.call(arguments)
    except UniMoeError as error:
        if os.environ.get("UNI_MOE_DEBUG"):
            traceback.print_exc()
        print(f"{launch.prefix()}error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last door: what comes here is our own mistake
        traceback.print_exc()
        print(f"error: {type(error).__name__}: {error}\n{_REPORT}", file=sys.stderr)
        return _BUG
    return done or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="uni-moe",
        description="Train, retrain, judge and audit Uni-MoE models.",
        epilog="Stages run one by one as `uni-moe STAGE[@ITEM]`; `uni-moe run` runs what must run.",
    )
    parser.add_argument(
        "--workspace", type=Path, default=Path(), metavar="DIR", help="default: this folder"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, call: Callable[..., int | None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(call=call)
        return sub

    run = command("run", _run, "run what must run, then register, judge and promote")
    run.add_argument("--reason", default="by hand", help="why; kept with every run")
    plan = command("plan", _plan, "say which stages must run, and why")
    plan.add_argument("--json", action="store_true", help="as JSON")
    new = command("new", _new, "make a workspace from a recipe")
    new.add_argument("folder", type=Path)
    new.add_argument("--recipe", default="playground")
    command("recipes", _recipes, "list the recipes")
    command("refresh", _refresh, "bring a workspace's graph up to this version of the code")
    ask = command("ask", _ask, "ask the champion about a picture, film, sound or speech")
    ask.add_argument("question")
    ask.add_argument("--model", type=Path, metavar="FOLDER", help="ask this one, not the champion")
    ask.add_argument("--max-new-tokens", type=int, metavar="N", help="default: as in params.yaml")
    for kind in MEDIA_KINDS:
        ask.add_argument(f"--{kind}", type=Path, action="append", default=[], metavar="FILE")
    ask.add_argument("--json", action="store_true", help="as JSON")
    lineage = command("lineage", _lineage, "print the tree from a model back to its sources")
    lineage.add_argument("model", nargs="?", help="version or id; default: the champion")
    lineage.add_argument("--json", action="store_true", help="as JSON")
    models = command("models", _models, "list registered models and the champion")
    models.add_argument("--json", action="store_true", help="as JSON")
    command("report", _report, "print the judgement of the candidate in artifacts/")
    again = command("judge", _judge, "judge a registered model on the test items of today")
    again.add_argument("model", nargs="?", help="version or id; default: the champion")
    register = command("register", _register, "register and judge the model in artifacts/ alone")
    register.add_argument("--reason", default="by hand", help="why; kept with the version")
    cli_data.add_words(command)
    cli_models.add_words(command)
    cli_ledger.add_words(command)
    cli_remote.add_words(command)
    start = command(
        "launch", _launch, "start a phase as machine.yaml says; on a further node, join"
    )
    phases = [f"{stage}@{item}" for stage in PHASES for item in STAGES[stage][1]]
    start.add_argument("stage", choices=[*phases, "tune"], metavar="PHASE")
    start.add_argument("--print", action="store_true", help="say the command, start nothing")
    start.add_argument("--json", action="store_true", help="the command as JSON; starts nothing")
    cli_features.add_words(command)
    index = command("index", _index, "import cards and run folders into the database")
    index.add_argument("--rebuild", action="store_true", help="drop the database first")
    for stage, (_, items, text) in STAGES.items():
        sub = command(stage, _stage, f"stage: {text}")
        sub.set_defaults(stage=stage, item=None)
        if items:
            sub.add_argument("item", choices=items)
        for item in items:
            each = commands.add_parser(f"{stage}@{item}", description=f"{text}: {item}")
            each.set_defaults(call=_stage, stage=stage, item=item)
    return parser


def _layout(arguments: argparse.Namespace) -> Layout:
    return Layout(arguments.workspace.resolve())


def _quiet(params: Params) -> None:
    """Settle the process before torch is imported."""
    threads = str(params.platform.threads)
    for name, value in {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "DEEPSPEED_LOG_LEVEL": "error",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS is not deterministic
    }.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning)


def _stage(arguments: argparse.Namespace) -> None:
    layout = _layout(arguments)
    params = load_params(layout.params)
    machine = load_machine(layout.root)
    name = arguments.stage + (f"@{arguments.item}" if arguments.item else "")
    _quiet(params)
    end_with_starter(launched=launch.is_launched())
    if _starts_launcher(arguments.stage, machine):
        launch.launch(machine, _words(layout, name))
        return
    from uni_moe.runs import follow_run, start_run
    from uni_moe.stage import StageContext

    module, _, function = STAGES[arguments.stage][0].partition(":")
    call = getattr(importlib.import_module(module), function)
    if launch.is_launched():
        launch.end_in_order()
    if not launch.here().is_first:
        try:
            call(StageContext(name, layout, params, follow_run(layout, name), machine))
        except UniMoeError:
            launch.let_the_first_speak()
            raise
        return
    with only_one(layout, name), start_run(layout, name, {"seed": params.seed}) as run:
        run.event("machine", **asdict(machine))
        call(StageContext(name, layout, params, run, machine))


def _starts_launcher(stage: str, machine: Machine) -> bool:
    return stage in PHASES and machine.launcher != "none" and not launch.is_launched()


def _words(layout: Layout, name: str) -> list[str]:
    """Return a stage's own command line."""
    return ["--workspace", str(layout.root), name]


def _launch(arguments: argparse.Namespace) -> int:
    layout = _layout(arguments)
    machine = load_machine(layout.root)
    words = _words(layout, arguments.stage)
    if arguments.print or arguments.json:
        by_launcher = machine.launcher != "none"
        line = launch.shell_words(machine, words) if by_launcher else ["uni-moe", *words]
        print(json.dumps(line) if arguments.json else shlex.join(line))
        return 0
    return main(words)


def _plan(arguments: argparse.Namespace) -> None:
    layout = _ready(arguments)
    from flows.dvc import plan_stages

    plan = plan_stages(layout.root)
    print(json.dumps(plan.to_json(), indent=1) if arguments.json else plan.text())


def _ready(arguments: argparse.Namespace) -> Layout:
    """Return a workspace whose params and graph hold: a slip is told before anything else."""
    from uni_moe.workspace import check_graph

    layout = _layout(arguments)
    params = load_params(layout.params)
    check_graph(layout.root)
    if not (layout.root / params.raw).exists():
        raise ConfigError(
            f"The folder of raw data {params.raw} does not exist.",
            cause="`raw` in params.yaml names it; it is read relative to the workspace "
            f"{layout.root}.",
            remedy="put the data there, or name the folder where it lies.",
        )
    return layout


def _run(arguments: argparse.Namespace) -> int:
    layout = _ready(arguments)
    rules = load_params(layout.params).gate
    from flows.dvc import plan_stages

    plan = plan_stages(layout.root)
    print(plan.text(), flush=True)
    if plan.empty and _is_judged(layout, rules):
        return _closing(layout)
    if load_machine(layout.root).launcher != "none":  # every stage has the machine for itself
        os.environ.setdefault("UNI_MOE_WORKERS", "1")
    with only_one(layout, "run"):
        from flows.embedded import settle

        settle(layout.state)
        from flows.pipeline import retrain

        verdict = cast("Verdict", retrain(str(layout.root), arguments.reason))
    _tell(verdict)
    return _closing(layout)


def _tell(verdict: Verdict) -> None:
    print("\npromoted" if verdict.promoted else "\nnot promoted")
    for reason in verdict.reasons:
        print(f"  - {reason}")


def _is_judged(layout: Layout, rules: Gate) -> bool:
    """Say whether the gate has spoken about this very report, by the rules of today."""
    from uni_moe.artifacts import read_card
    from uni_moe.registry.read import champion, verdicts

    model, report = read_card(layout.model).id, read_card(layout.report).id
    current = champion(layout)
    if current is not None and (current.model, current.report) == (model, report):
        return True
    return any(
        one.candidate_report == report and one.verdict.evidence.get("rules") == asdict(rules)
        for one in verdicts(layout)
    )


def _closing(layout: Layout) -> int:
    from uni_moe.artifacts import read_card
    from uni_moe.registry.read import champion

    current = champion(layout)
    if current is None:
        print(f"\nThere is no champion. The candidate:\n\n{_table(layout.report)}")
    else:
        if current.report != read_card(layout.report).id:
            print(f"\nThe candidate:\n\n{_table(layout.report)}")
        print(f"\nThe champion, version {current.number}:\n\n{_table(current.report_folder)}")
    print(
        "\nNext:\n"
        "  uni-moe lineage                     from the model back to its sources\n"
        "  uni-moe models                      versions and verdicts\n"
        '  uni-moe ask --image cat.png "What is this?"\n'
        f"  open {layout.report / 'report.html'}"
    )
    return 0


def _report(arguments: argparse.Namespace) -> None:
    print(_table(_layout(arguments).report))


def _table(folder: Path) -> str:
    from uni_moe.artifacts import read_json
    from uni_moe.evaluate.report import score_table
    from uni_moe.records import EvalReport

    file = folder / "report.json"
    if not file.is_file():
        raise ConfigError(
            "There is no report in this workspace.",
            cause="nothing has been evaluated here.",
            remedy="run `uni-moe run` first.",
        )
    return score_table(EvalReport.from_json(read_json(file)))


def _new(arguments: argparse.Namespace) -> None:
    from uni_moe.workspace import make_workspace

    folder = make_workspace(arguments.folder, arguments.recipe)
    raw = load_params(Layout(folder).params).raw
    if not (folder / raw).exists():
        print(f"note: put the raw data at {(folder / raw).resolve()}, or change `raw`, `sources`")
    print(
        f"made a workspace at {folder}\n\nNext:\n"
        f"  cd {folder}\n  uni-moe plan\n  uni-moe run --reason 'first training'"
    )


def _refresh(arguments: argparse.Namespace) -> None:
    from uni_moe.workspace import refresh

    changed = refresh(_layout(arguments).root)
    print("dvc.yaml is written anew" if changed else "dvc.yaml is up to date")


def _recipes(_: argparse.Namespace) -> None:
    from uni_moe.workspace import recipes

    for name, line in recipes().items():
        print(f"{name:16} {line}")


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


def _champion(arguments: argparse.Namespace) -> tuple[Path, str, int]:
    """Return the champion's folder, its name, and how long it may answer."""
    layout = _layout(arguments)
    params = load_params(layout.params)
    _quiet(params)
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


def _lineage(arguments: argparse.Namespace) -> None:
    from uni_moe.registry.read import lineage, lineage_text

    tree = lineage(_layout(arguments), arguments.model)
    print(json.dumps(tree.to_json(), indent=1) if arguments.json else lineage_text(tree))


def _models(arguments: argparse.Namespace) -> None:
    from uni_moe.registry.read import models, models_text

    found = models(_layout(arguments))
    if arguments.json:
        print(json.dumps([version.to_json() for version in found], indent=1))
    else:
        print(models_text(found))


def _register(arguments: argparse.Namespace) -> None:
    from uni_moe.registry import write

    layout = _layout(arguments)
    params = load_params(layout.params)
    candidate = write.register(layout, reason=arguments.reason, who=getpass.getuser())
    _tell(write.promote_if_better(layout, candidate, params.gate, reason=arguments.reason))


def _judge(arguments: argparse.Namespace) -> None:
    layout = _layout(arguments)
    params = load_params(layout.params)
    _quiet(params)
    from uni_moe.registry import read, write
    from uni_moe.runs import start_run
    from uni_moe.stage import StageContext

    version = read.find(layout, arguments.model)
    with only_one(layout, "judge"), start_run(layout, "judge", {"model": version.model}) as run:
        from uni_moe.evaluate.harness import judge_again

        ctx = StageContext("judge", layout, params, run)
        folder = judge_again(ctx, version.model_folder, version.report_folder)
        done = write.register_judgement(layout, version.model, folder, who=getpass.getuser())
    print(f"\nVersion {done.number}, judged on the items of today:\n")
    print(_table(read.find(layout, version.model).report_folder))


def _index(arguments: argparse.Namespace) -> None:
    from uni_moe.registry import write

    layout = _layout(arguments)
    counts = write.rebuild(layout) if arguments.rebuild else write.index(layout)
    for name, count in counts.items():
        print(f"{name:12} {count}")
