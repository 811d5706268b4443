"""A workspace's remote, for DVC's data and our store together: set it, copy to it and from it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from flows.dvc import keep_remote, kept_data, plan_stages, run_module
from uni_moe.alone import only_one
from uni_moe.artifacts import CARD, Layout, verified_card
from uni_moe.errors import ConfigError, StageError, StoreError, UnreachableError, bullets
from uni_moe.registry import indexing, read
from uni_moe.registry.graphs import LOCK
from uni_moe.registry.travel import (
    fetch_graphs,
    fetch_lock,
    fetch_model,
    fetch_records,
    is_buried,
    send,
)
from uni_moe.storage.dvc_data import absent, data_of, remove_spoilt, still_wrong
from uni_moe.storage.remote import (
    NAME,
    Remote,
    check_folder,
    check_told,
    credentials_of,
    make_folder,
    objects_of,
    open_store,
    read_remote,
)
from uni_moe.storage.turns import TURNS, at_work

Say = Callable[[str], None]
_LACKS = "do not exist neither locally nor on remote"


def set_remote(root: Path, remote: Remote) -> None:
    """Make a place the remote of a workspace, for DVC and for us.

    A bucket is not asked; a folder is made and marked.

    Raises:
        ConfigError: the folder is no workspace, DVC cannot reach buckets here, or this machine's
            own config says another place.
        StoreError: a folder cannot be made.
    """
    _able(remote)
    keep_remote(root, NAME, remote.for_dvc())
    check_told(root, remote)
    if not remote.is_s3:
        make_folder(remote)


def the_remote(root: Path) -> Remote:
    """Return a workspace's remote.

    Raises:
        ConfigError: there is none.
    """
    remote = read_remote(root)
    if remote is None:
        raise ConfigError(
            f"The workspace {root} has no remote.",
            cause="none was set.",
            remedy="set one: `uni-moe remote set s3://bucket/prefix --endpoint http://host:9000`, "
            "or `uni-moe remote set FOLDER`.",
        )
    _able(remote)
    return remote


def push_if_set(root: Path, say: Say) -> None:
    """Copy a workspace to its remote, if it has one.

    Raises:
        UniMoeError: the copy did not arrive; the next one goes on from there.
    """
    if read_remote(root) is not None:
        push(root, say)


def push(root: Path, say: Say, *, verify: bool = False) -> None:
    """Copy records, models and DVC's data to the remote, small things first.

    Raises:
        LineageError: the remote keeps other content under a key, or ours was changed.
        StoreError: the remote cannot be reached, refuses, or is full; or it holds data that is
            wrong and cannot be sent again from here.
    """
    remote, layout = the_remote(root), Layout(root)
    check_folder(remote)
    settled = _settled(root, say)
    with only_one(layout, "push"), at_work(objects_of(root, remote, TURNS), "push"):
        sent = send(layout, open_store(root, remote), say, settled=settled, verify=verify)
        say(f"records and models: {sent} folders {'verified' if verify else 'sent'}")
        left = _mend_data(root, remote, say) if verify else ()
        if (root / LOCK).is_file():
            _dvc(root, remote, "push", say)
        if verify:
            _check_data(root, remote, left)


def pull(root: Path, model: str | None, say: Say, *, everything: bool = False) -> None:
    """Copy records, one model (by default the champion) and its data by DVC from the remote.

    Raises:
        LineageError: there is no such model or no champion, or what the remote keeps was changed.
        StoreError: the remote cannot be reached or refuses, or our disk has no room.
    """
    remote, layout = the_remote(root), Layout(root)
    check_folder(remote)
    with only_one(layout, "pull"):
        _pull(layout, remote, model, say, everything=everything)


def _pull(layout: Layout, remote: Remote, model: str | None, say: Say, *, everything: bool) -> None:
    root, store = layout.root, open_store(layout.root, remote)
    fetch_records(layout, store, say)
    indexing.index(layout)
    versions = read.models(layout)
    only_all = everything and versions and not any(one.is_champion for one in versions)
    wanted = None if only_all else read.find(layout, model)
    for version in versions:
        is_wanted = wanted is not None and version.model == wanted.model
        if is_wanted or (everything and is_buried(layout, store, version.model) is None):
            fetch_model(layout, store, version, say)
    if wanted is not None:
        fetch_lock(layout, store, wanted, say)
    if (root / LOCK).is_file():
        pull_data(root, say)


def pull_records(root: Path, model: str | None, say: Say) -> None:
    """Copy records and what a model was made by from the remote: nothing large.

    Raises:
        LineageError: there is no such model, or what the remote keeps was changed.
        StoreError: the remote cannot be reached or refuses, or our disk has no room.
    """
    remote, layout = the_remote(root), Layout(root)
    check_folder(remote)
    store = open_store(root, remote)
    fetch_records(layout, store, say)
    indexing.index(layout)
    fetch_graphs(layout, store, read.find(layout, model))


def pull_data(root: Path, say: Say) -> None:
    """Copy what the workspace's lock names from the remote, each artifact checked.

    Raises:
        LineageError: an artifact is not what its card says.
        StoreError: the remote cannot be reached, or lacks data.
    """
    _dvc(root, the_remote(root), "pull", say)
    for folder in sorted(file.parent for file in Layout(root).artifacts.rglob(CARD)):
        verified_card(folder)


def _mend_data(root: Path, remote: Remote, say: Say) -> tuple[str, ...]:
    """Remove wrong data that will be sent again; return what is wrong and stays."""
    spoilt = remove_spoilt(data_of(root, remote), kept_data(root))
    for name in spoilt.removed:
        say(f"  {name} in DVC's part of the remote is wrong; it is sent again")
    for name in spoilt.left:
        say(f"  {name} in DVC's part of the remote is wrong; it is not in our cache, and stays")
    return spoilt.left


def _check_data(root: Path, remote: Remote, left: tuple[str, ...]) -> None:
    """Tell what a push could not mend.

    Raises:
        StoreError: wrong data stayed in the remote, or data that our lock names is not there.
    """
    store = data_of(root, remote)
    wrong, lacking = still_wrong(store, left), absent(store, kept_data(root))
    if wrong or lacking:
        named = [f"{name} is wrong" for name in wrong] + [f"{name} is absent" for name in lacking]
        raise StoreError(
            f"DVC's part of the remote is not whole.{bullets(named)}",
            cause=f"the bytes are not in this workspace's cache, or {LOCK} does not name them.",
            remedy="give `uni-moe push --verify` where the cache is whole, or on the version that "
            "made them; nothing of them was removed.",
        )


def _settled(root: Path, say: Say) -> bool:
    """Say whether dvc.lock describes what lies in artifacts/."""
    if not (root / LOCK).is_file():
        return False
    settled = plan_stages(root).empty
    if not settled:
        say(f"note: {LOCK} is older than artifacts/, code or params; it is not kept with the model")
    return settled


def _able(remote: Remote) -> None:
    if remote.is_s3 and importlib.util.find_spec("dvc_s3") is None:
        raise ConfigError(
            "DVC cannot reach buckets here.",
            cause="its part for S3 is not installed.",
            remedy='install it: `pip install -e ".[s3]"`, or `make setup`.',
        )


def _dvc(root: Path, remote: Remote, word: str, say: Say) -> None:
    """Let DVC push or pull what `dvc.lock` names."""
    known = credentials_of(root).environment() if remote.is_s3 else {}
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        say(line)

    say(f"data: dvc {word}")
    failure = None
    try:
        run_module(
            "dvc", [word, "--remote", NAME], root, name=f"dvc {word}", environment=known, say=hear
        )
    except StageError as error:
        failure = error
    if any(_LACKS in line for line in said):  # DVC may only warn, and call it up to date
        raise _lacking(word) from failure
    if failure is not None:
        _check_answers(root, remote)
        raise StoreError(
            f"DVC could not {word} the data. {failure.what}",
            cause="the lines above say it; records and models had arrived before.",
            remedy=f"mend it, then `uni-moe {word}`; what has arrived is not copied again.",
        ) from failure


def _check_answers(root: Path, remote: Remote) -> None:
    """Hold that the remote is there by now: DVC's words do not say whether its fault was outside.

    Raises:
        UnreachableError: it is not.
    """
    check_folder(remote)
    try:
        objects_of(root, remote, TURNS).objects()
    except UnreachableError:
        raise
    except StoreError:  # it answers, and DVC's own words say more
        return


def _lacking(word: str) -> StoreError:
    """Return the error of data that DVC neither found here nor there."""
    if word == "push":
        return StoreError(
            f"DVC could not push all data: its cache lacks files that {LOCK} names.",
            cause="the cache was cleared, or belongs to another machine.",
            remedy="let `dvc commit` take up artifacts/, or `dvc repro` make them again; then "
            "`uni-moe push`.",
        )
    return StoreError(
        f"DVC could not pull all data: the remote lacks files that {LOCK} names.",
        cause="the push that should have sent them did not end well, or they were removed there.",
        remedy="give `uni-moe push --verify` where they are, then `uni-moe pull` here; or let "
        "`dvc repro` make them again.",
    )
