"""The command's words for housekeeping: what may go, and what takes how much."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from uni_moe.artifacts import Layout
from uni_moe.audit import Asked
from uni_moe.command import Command
from uni_moe.errors import ConfigError, bullets
from uni_moe.machine import Machine, load_machine, retention_problems
from uni_moe.runs import user

if TYPE_CHECKING:
    from uni_moe.housekeeping.plan import Plan


def add_words(command: Command) -> None:
    """Add the words to the parser; `command` makes one."""
    gc = command("gc", _gc, "say what may go by the rules of retention; with --yes, remove it")
    gc.add_argument("--keep-versions", type=int, metavar="N", help="the newest N stay")
    gc.add_argument("--keep-days", type=float, metavar="D", help="what is younger stays")
    gc.add_argument("--remote", action="store_true", help="in the remote, too")
    gc.add_argument("--yes", action="store_true", help="do it, without a question")
    gc.add_argument("--why", default="by the rules of retention", help="kept in the audit log")
    gc.add_argument("--json", action="store_true", help="as JSON")
    disk = command("disk", _disk, "say what takes how much of the disk, and of the remote")
    disk.add_argument("--json", action="store_true", help="as JSON")


def _gc(arguments: argparse.Namespace) -> None:
    from flows.housekeeping import do_gc, plan_gc

    layout = Layout(arguments.workspace.resolve())
    machine = _machine(layout, arguments)
    plan = None
    if not arguments.yes:
        plan = plan_gc(layout.root, machine, remote=arguments.remote)
        _show(plan, as_json=arguments.json, done=False)
        if not plan.goes or arguments.json or not _agreed():
            return
    asked = Asked(user(), arguments.why)
    done = do_gc(layout.root, machine, asked, remote=arguments.remote, agreed=plan)
    _show(done, as_json=arguments.json, done=True)


def _machine(layout: Layout, arguments: argparse.Namespace) -> Machine:
    """Return the machine's profile, with the rules that the command line says."""
    machine = load_machine(layout.root)
    told: dict[str, Any] = {"versions": arguments.keep_versions, "days": arguments.keep_days}
    said = {name: value for name, value in told.items() if value is not None}
    rules = replace(machine.retention, **said)
    if problems := retention_problems(rules):
        raise ConfigError(
            f"These rules of retention cannot be:{bullets(problems)}",
            cause="--keep-versions or --keep-days is out of range.",
            remedy="write what stays, as machine.yaml would say it.",
        )
    return replace(machine, retention=rules)


def _agreed() -> bool:
    """Ask a person at a terminal; elsewhere nobody agrees."""
    if not sys.stdin.isatty():
        print("nothing was removed; --yes does it")
        return False
    return input("Remove all this? Type yes: ").strip() == "yes"


def _show(plan: Plan, *, as_json: bool, done: bool) -> None:
    if as_json:
        print(json.dumps({**plan.to_json(), "done": done}, indent=1))
    else:
        print(f"{plan.text()}{'; it is gone' if done and plan.goes else ''}", flush=True)


def _disk(arguments: argparse.Namespace) -> None:
    from flows.dvc import cache_folder
    from uni_moe.housekeeping.disk import disk_here, disk_text, disk_there
    from uni_moe.storage.dvc_data import data_of
    from uni_moe.storage.remote import STORE, check_folder, objects_of, read_remote

    layout = Layout(arguments.workspace.resolve())
    cache = cache_folder(layout.root) if (layout.root / ".dvc").is_dir() else None
    uses = disk_here(layout, load_machine(layout.root), cache)
    remote = read_remote(layout.root)
    if remote is not None:
        check_folder(remote)
        uses += disk_there(objects_of(layout.root, remote, STORE), data_of(layout.root, remote))
    if arguments.json:
        print(json.dumps([one.to_json() for one in uses], indent=1))
    else:
        print(disk_text(uses))
