"""The command's words for the whole road: plan, run, register, judge, report.

Heavy imports happen inside, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from uni_moe.alone import only_one
from uni_moe.artifacts import Layout
from uni_moe.cli_process import quiet
from uni_moe.command import Command
from uni_moe.config import load_params
from uni_moe.errors import ConfigError
from uni_moe.machine import check_experts, load_machine
from uni_moe.runs import user

if TYPE_CHECKING:
    from flows.plan import Plan


def add_words(command: Command) -> None:
    """Add the words to the parser; `command` makes one."""
    run = command("run", _run, "run what must run, then register, judge and promote")
    run.add_argument("--reason", default="by hand", help="why; kept with every run")
    plan = command("plan", _plan, "say what would run, and why: samples, memory, time, disk")
    plan.add_argument("--json", action="store_true", help="as JSON")
    command("report", _report, "print the judgement of the candidate in artifacts/")
    again = command("judge", _judge, "judge a registered model on the test items of today")
    again.add_argument("model", nargs="?", help="version or id; default: the champion")
    register = command("register", _register, "register and judge the model in artifacts/ alone")
    register.add_argument("--reason", default="by hand", help="why; kept with the version")


def _plan(arguments: argparse.Namespace) -> int:
    layout = _ready(arguments)
    from flows.dvc import plan_stages

    plan = plan_stages(layout.root)
    if plan.empty and not arguments.json:
        print(plan.text())
        return 0
    quiet(load_params(layout.params))
    from uni_moe.outlook.text import outlook_text
    from uni_moe.outlook.whole import look_ahead

    outlook = look_ahead(layout, [stage.name for stage in plan.stages], _abreast(layout, plan))
    if arguments.json:
        print(json.dumps(plan.to_json() | outlook.to_json(), indent=1))
    else:
        print(f"{plan.text()}\n\n{outlook_text(outlook)}")
    return 0 if outlook.fits else ConfigError.exit_code  # it cannot be followed here


def _ready(arguments: argparse.Namespace) -> Layout:
    """Return a workspace whose params and graph hold: a slip is told before anything else."""
    from uni_moe.workspace import check_graph

    layout = Layout(arguments.workspace.resolve())
    params = load_params(layout.params)
    check_graph(layout.root)
    experts = len(params.assembly.slots) if params.model.sparse_layers else 0
    check_experts(experts, load_machine(layout.root).expert_parallel)
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
    from uni_moe.registry.database import check
    from uni_moe.registry.known import is_judged

    check(layout)  # hours of training are not to end with an index that cannot be used

    plan = plan_stages(layout.root)
    print(plan.text(), flush=True)
    if plan.empty and is_judged(layout, rules):
        from flows.remote import push_if_set
        from uni_moe.registry.indexing import index

        index(layout)  # an earlier run may have ended before it
        push_if_set(layout.root, lambda line: print(line, flush=True))  # one may have failed
        return _closing(layout)
    _share(layout)
    with only_one(layout, "run"):
        from flows.embedded import settle

        settle(layout.state)
        from flows.pipeline import retrain_here

        verdict = retrain_here(str(layout.root), arguments.reason)
    print(f"\n{verdict.text}")
    return _closing(layout)


def _share(layout: Layout) -> None:
    """Let stages run one by one where each has a launcher's processes or the accelerator."""
    from uni_moe.platform import device

    if load_machine(layout.root).launcher != "none" or device().type != "cpu":
        os.environ.setdefault("UNI_MOE_WORKERS", "1")


def _abreast(layout: Layout, plan: Plan) -> int:
    """Return how many trainings of a plan share the machine when it runs."""
    from flows.seats import workers

    _share(layout)
    return min(workers(), max((stage.abreast for stage in plan.stages), default=1))


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
    print(_table(Layout(arguments.workspace.resolve()).report))


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


def _register(arguments: argparse.Namespace) -> None:
    from uni_moe.registry.promoting import promote_if_better
    from uni_moe.registry.write import register

    layout = Layout(arguments.workspace.resolve())
    params = load_params(layout.params)
    candidate = register(layout, reason=arguments.reason, who=user())
    _keep_graph(layout)
    verdict = promote_if_better(layout, candidate, params.gate, reason=arguments.reason)
    print(f"\n{verdict.text}")


def _keep_graph(layout: Layout) -> None:
    """Keep DVC's lock with the model, where it is the one that names the model's data."""
    from flows.dvc import plan_stages
    from uni_moe.registry.graphs import LOCK, keep_graph

    if (layout.root / LOCK).is_file() and plan_stages(layout.root).empty:
        keep_graph(layout)


def _judge(arguments: argparse.Namespace) -> None:
    layout = Layout(arguments.workspace.resolve())
    params = load_params(layout.params)
    quiet(params)
    from uni_moe.registry import read, write
    from uni_moe.runs import start_run
    from uni_moe.stage import StageContext

    version = read.find(layout, arguments.model)
    with only_one(layout, "judge"), start_run(layout, "judge", {"model": version.model}) as run:
        from uni_moe.evaluate.harness import judge_again

        ctx = StageContext("judge", layout, params, run)
        folder = judge_again(ctx, version.model_folder, version.report_folder)
        done = write.register_judgement(layout, version.model, folder, who=user())
    print(f"\nVersion {done.number}, judged on the items of today:\n")
    print(_table(read.find(layout, version.model).report_folder))
