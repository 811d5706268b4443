"""The command's words for the remote: set, show, push, pull."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uni_moe.command import Command
from uni_moe.errors import ConfigError, UniMoeError

if TYPE_CHECKING:
    from uni_moe.storage.remote import Remote


def add_words(command: Command) -> None:
    """Add the words to the parser; `command` makes one."""
    remote = command("remote", _show, "say or set where data, models and records are copied to")
    words = remote.add_subparsers(metavar="WORD", required=True)
    place = words.add_parser("set", help="a bucket or a folder, for DVC's data and our store")
    place.set_defaults(call=_set)
    place.add_argument("url", help="s3://bucket/prefix, or the path of a folder")
    place.add_argument("--endpoint", metavar="URL", help="http://host:9000; default: Amazon's own")
    place.add_argument("--region", default="us-east-1")
    place.add_argument("--make-bucket", action="store_true", help="make the bucket if it is absent")
    show = words.add_parser("show", help="where it is, who we are there, whether it answers")
    show.set_defaults(call=_show)
    show.add_argument("--json", action="store_true", help="as JSON")
    push = command("push", _push, "copy records, models and data to the remote")
    push.add_argument(
        "--verify", action="store_true", help="read every byte there; send again what is wrong"
    )
    pull = command("pull", _pull, "copy records, a model and data from the remote")
    pull.add_argument("model", nargs="?", help="version or id; default: the champion")
    pull.add_argument("--all", action="store_true", help="every registered model")


def _set(arguments: argparse.Namespace) -> None:
    from flows.remote import set_remote
    from uni_moe.storage.remote import parse_remote

    root = arguments.workspace.resolve()
    remote = parse_remote(arguments.url, arguments.endpoint, arguments.region, Path.cwd())
    if arguments.make_bucket and not remote.is_s3:
        raise ConfigError(
            "--make-bucket belongs to a bucket.",
            cause=f"{remote.url} is a folder, which is made here and now.",
            remedy="leave it out.",
        )
    set_remote(root, remote)
    print(f"the remote is {remote.text()}", flush=True)
    if remote.is_s3:
        _ask(root, remote, make=arguments.make_bucket)
        print("it answers, and knows us")


def _show(arguments: argparse.Namespace) -> None:
    from flows.remote import the_remote

    root = arguments.workspace.resolve()
    facts = _facts(root, the_remote(root))
    if arguments.json:
        print(json.dumps(facts, indent=1))
    else:
        print("\n".join(f"{name:12} {value}" for name, value in facts.items() if value is not None))


def _facts(root: Path, remote: Remote) -> dict[str, Any]:
    """Return what may be told of a remote; secrets are not among it."""
    from uni_moe.storage.remote import check_folder, credentials_of

    facts: dict[str, Any] = {"remote": remote.url, "endpoint": remote.endpoint}
    if remote.is_s3:
        facts |= {"region": remote.region, "credentials": "none"}
    try:
        check_folder(remote)
        if remote.is_s3:
            facts["credentials"] = credentials_of(root).origin
            _ask(root, remote)
        facts["answers"] = "yes"
    except UniMoeError as error:
        facts["answers"] = f"no: {error.what} {error.remedy}"
    return facts


def _ask(root: Path, remote: Remote, *, make: bool = False) -> None:
    """Ask a bucket's server whether it serves us."""
    from uni_moe.storage.remote import credentials_of
    from uni_moe.storage.s3 import S3Bucket

    bucket = S3Bucket(remote, credentials_of(root))
    if make and bucket.make_bucket():
        print(f"the bucket {remote.bucket} is made")
    bucket.check()


def _push(arguments: argparse.Namespace) -> None:
    from flows.remote import push

    push(arguments.workspace.resolve(), _say, verify=arguments.verify)


def _pull(arguments: argparse.Namespace) -> None:
    if arguments.all and arguments.model is not None:
        raise ConfigError(
            "--all leaves nothing to choose.",
            cause=f"the version {arguments.model} was named, too.",
            remedy="leave one of them out.",
        )
    from flows.remote import pull

    pull(arguments.workspace.resolve(), arguments.model, _say, everything=arguments.all)


def _say(line: str) -> None:
    print(line, flush=True)
