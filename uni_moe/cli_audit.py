"""The command's words for who decided what: the audit log, promotion, the way back, passports."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from uni_moe.artifacts import Layout, whole_file, write_text
from uni_moe.audit import Asked
from uni_moe.command import Command
from uni_moe.config import load_params
from uni_moe.errors import ConfigError, GateError
from uni_moe.runs import user

if TYPE_CHECKING:
    from uni_moe.audit import Entry
    from uni_moe.registry.gate import Verdict

CHANGED = 1  # the exit code of `audit verify` where something was changed


def add_words(command: Command) -> None:
    """Add the words to the parser; `command` makes one."""
    audit = command("audit", _verify, "who decided what, when, why and on what evidence")
    words = audit.add_subparsers(metavar="WORD", required=True)
    verify = words.add_parser("verify", help="check the log and all that it names")
    verify.set_defaults(call=_verify)
    verify.add_argument("--head", metavar="HASH", help="a head that was kept elsewhere")
    verify.add_argument("--json", action="store_true", help="as JSON")
    show = words.add_parser("show", help="print the entries")
    show.set_defaults(call=_show)
    show.add_argument("--json", action="store_true", help="as JSON")
    export = words.add_parser("export", help="write the entries as JSON Lines, and tell the head")
    export.set_defaults(call=_export)
    export.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    export.add_argument(
        "--openlineage", type=Path, metavar="FILE", help="runs and decisions as OpenLineage events"
    )
    export.add_argument(
        "--namespace",
        metavar="URI",
        help="of jobs and datasets in OpenLineage events; default: one that is this workspace's",
    )
    for name, call, text in (
        ("promote", _promote, "make a registered model the champion, if the gate agrees"),
        ("approve", _approve, "approve a registered model under your name"),
        ("rollback", _rollback, "bring back the champion before this one"),
        ("forget", _forget, "remove a registered model for good; its number stays"),
    ):
        sub = command(name, call, text)
        if name != "rollback":
            sub.add_argument("model", help="version, or the beginning of an id")
        sub.add_argument("--why", required=True, metavar="TEXT", help="kept in the audit log")
        if name == "promote":
            sub.add_argument("--waive", action="store_true", help="even if the gate refuses")
    passport = command("passport", _passport, "write all about a model as one page")
    passport.add_argument("model", nargs="?", help="version or id; default: the champion")
    passport.add_argument("--out", type=Path, required=True, metavar="FILE")


def _layout(arguments: argparse.Namespace) -> Layout:
    return Layout(arguments.workspace.resolve())


def _verify(arguments: argparse.Namespace) -> int:
    from uni_moe.audit_evidence import audited
    from uni_moe.registry.decisions import finish_decision
    from uni_moe.storage.remote import read_remote

    head = arguments.head
    if head is not None and not re.fullmatch(r"[0-9a-f]{64}", head):
        raise ConfigError(
            f"{head!r} is not the hash of a head.",
            cause="64 digits from 0 to 9 and a to f are asked for.",
            remedy="take the one that `uni-moe audit export` told.",
        )
    layout = _layout(arguments)
    for path in finish_decision(layout):
        print(f"note: {path} is written now: its process had died before", file=sys.stderr)
    found = audited(layout, head, has_remote=read_remote(layout.root) is not None)
    if arguments.json:
        told = [{"sequence": one.sequence, "what": one.what} for one in found.problems]
        facts = {"entries": len(found.entries), "head": found.head}
        print(json.dumps(facts | {"problems": told, "notes": found.notes}, indent=1))
        return CHANGED if found.problems else 0
    for note in found.notes:
        print(f"note: {note}")
    if not found.problems:
        print(f"{len(found.entries)} entries, all as they were written; head {found.head}")
        return 0
    print(f"changed: {len(found.problems)} place(s); the first bad is {found.problems[0].text}")
    for problem in found.problems[1:]:
        print(f"  {problem.text}")
    print(f"{len(found.entries)} entries before the log's first bad one are whole")
    return CHANGED


def _show(arguments: argparse.Namespace) -> None:
    entries = _entries(arguments)
    if arguments.json:
        print(json.dumps([entry.to_json() for entry in entries], indent=1))
        return
    print("\n".join(map(_line, entries)) or "nothing has been decided here")


def _line(entry: Entry) -> str:
    subject = "" if entry.subject is None else f"  {entry.subject[:12]}"
    return (
        f"{entry.sequence:5}  {entry.at[:16]}  {entry.event:12}  {entry.who}{subject}  {entry.why}"
    )


def _entries(arguments: argparse.Namespace) -> tuple[Entry, ...]:
    """Return the entries of a log that is whole."""
    from uni_moe.audit_log import sound_log

    return sound_log(_layout(arguments)).entries


def _export(arguments: argparse.Namespace) -> None:
    entries = _entries(arguments)
    text = b"".join(entry.line for entry in entries)
    if arguments.openlineage is not None:
        from uni_moe.registry.openlineage import openlineage_lines

        lines = openlineage_lines(_layout(arguments), entries, arguments.namespace)
        write_text(arguments.openlineage, "".join(f"{line}\n" for line in lines))
        print(f"{len(lines)} events in {arguments.openlineage}", file=sys.stderr)
    if arguments.out is not None:
        with whole_file(arguments.out) as draft:
            draft.write_bytes(text)
    elif arguments.openlineage is None:
        sys.stdout.write(text.decode())
    from uni_moe.audit import BEGINNING

    head = entries[-1].hash if entries else BEGINNING
    print(f"{len(entries)} entries; keep this head elsewhere: {head}", file=sys.stderr)


def _asked(arguments: argparse.Namespace) -> Asked:
    if not arguments.why.strip():
        raise ConfigError(
            "--why says nothing.",
            cause="the audit log keeps why a decision fell.",
            remedy="write it in a few words.",
        )
    return Asked(user(), arguments.why)


def _promote(arguments: argparse.Namespace) -> int:
    from uni_moe.registry.promoting import promote

    layout, asked = _layout(arguments), _asked(arguments)
    rules = load_params(layout.params).gate
    return _tell(promote(layout, arguments.model, rules, asked, waive=arguments.waive))


def _rollback(arguments: argparse.Namespace) -> int:
    from uni_moe.registry.promoting import rollback

    layout, asked = _layout(arguments), _asked(arguments)
    return _tell(rollback(layout, load_params(layout.params).gate, asked))


def _approve(arguments: argparse.Namespace) -> None:
    from uni_moe.registry.promoting import approve

    layout, asked = _layout(arguments), _asked(arguments)
    wanted = load_params(layout.params).gate.approvals
    count = approve(layout, arguments.model, asked)
    print(f"approved by {asked.who}: {count} of {wanted}")


def _forget(arguments: argparse.Namespace) -> None:
    from uni_moe.registry.forgetting import forget

    layout, asked = _layout(arguments), _asked(arguments)
    version = forget(layout, arguments.model, asked)
    print(f"forgotten: version {version.number}; {layout.name_of(version.folder)} is removed")


def _tell(verdict: Verdict) -> int:
    print(verdict.text)
    return 0 if verdict.promoted else GateError.exit_code


def _passport(arguments: argparse.Namespace) -> None:
    from uni_moe.passport import passport

    write_text(arguments.out, passport(_layout(arguments), arguments.model))
    print(f"wrote {arguments.out}: one page, which opens offline")
