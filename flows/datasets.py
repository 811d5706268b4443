"""All data that a workspace's records name, on their way to the remote: not today's alone.

DVC pushes what the lock in a folder names. A scheduled run has its lock in a workspace apart, where
the next one writes it anew, and a remote may be set when there are versions already. So what these
locks and those kept with versions name is sent as well, from DVC's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.dvc import kept_data, run_module
from uni_moe.alone import is_at
from uni_moe.artifacts import Layout
from uni_moe.errors import StageError, StoreError, UnreachableError, bullets
from uni_moe.registry.graphs import LOCK, locks_apart, standing_locks
from uni_moe.storage.dvc_data import (
    Arrived,
    Kept,
    absent,
    data_of,
    names_in,
    remove_spoilt,
    send_rest,
    still_wrong,
)
from uni_moe.storage.dvc_unnamed import locked_roots
from uni_moe.storage.objects import Objects
from uni_moe.storage.remote import NAME, Remote, check_folder, credentials_of, objects_of
from uni_moe.storage.turns import TURNS

Say = Callable[[str], None]
_LACKS = "do not exist neither locally nor on remote"


class LackingError(StoreError):
    """DVC found data neither here nor there."""


@dataclass(frozen=True)
class Lost:
    """Data of a registered model that neither the remote holds nor our cache."""

    model: str
    objects: tuple[str, ...]

    def text(self) -> str:
        """Return it in words."""
        shown, rest = ", ".join(self.objects[:3]), len(self.objects) - 3
        more = f" and {rest} more" if rest > 0 else ""
        return (
            f"data of the model {self.model[:12]} are neither in the remote nor in our cache: "
            f"{shown}{more}"
        )


def push_data(layout: Layout, remote: Remote, say: Say, *, verify: bool) -> list[Lost]:
    """Send all data that locks here name, and read back what came; return what is lost.

    With `verify` every byte there is read, and what is wrong is sent again.

    Raises:
        LineageError: a kept lock was changed.
        StoreError: the remote cannot be reached, refuses, or is full; it gives back other bytes
            than were sent, or it lacks data that the workspace's own lock names.
    """
    store, own = data_of(layout.root, remote), kept_data(layout.root)
    versions = {
        model: frozenset(root for lock in locks for root in locked_roots(lock))
        for model, locks in standing_locks(layout).items()
    }
    kept = Kept(own.roots.union(_apart(layout), *versions.values()), own.cache)
    left = _mend_data(store, kept, say) if verify else ()
    before = names_in(store)
    lacks = _dvc_push(layout.root, remote, say)
    arrived = send_rest(store, kept, before)
    if arrived.sent:
        say(f"data: {len(arrived.sent)} file(s) of other runs and versions sent")
    if lacks is not None:
        raise lacks
    _check_arrived(arrived, own)
    if verify:
        _check_data(store, kept, left)
    return _lost(arrived, versions)


def _dvc_push(root: Path, remote: Remote, say: Say) -> LackingError | None:
    """Let DVC push what the workspace's own lock names; return what it found nowhere."""
    try:
        if (root / LOCK).is_file():
            let_dvc("push", root, remote, say)
    except LackingError as error:  # the data of other versions can still arrive
        return error
    return None


def let_dvc(word: str, root: Path, remote: Remote, say: Say) -> None:
    """Let DVC push or pull what `dvc.lock` names.

    Raises:
        LackingError: it found data neither here nor there.
        UnreachableError: it could not, and the remote is away.
        StoreError: it could not.
    """
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


def lost_data(lost: Sequence[Lost]) -> StoreError:
    """Return the error of data that are neither in the remote nor here."""
    return StoreError(
        f"Not all data of registered models are in the remote.{bullets([o.text() for o in lost])}",
        cause="the cache was cleared, or another machine made them and its push did not end well.",
        remedy="give `uni-moe push` where they are. Everything else has arrived; of a version that "
        "`uni-moe gc` or `uni-moe forget` took, none are asked for.",
    )


def _apart(layout: Layout) -> frozenset[str]:
    """Return what the locks of workspaces apart name; a run that is at one sends at its end."""
    home = layout.home
    idle = [file for slot, file in locks_apart(home) if not is_at(home, f"apart-{slot}")]
    texts = [file.read_text(encoding="utf-8") for file in idle]
    return frozenset(root for text in texts for root in locked_roots(text))


def _lost(arrived: Arrived, versions: dict[str, frozenset[str]]) -> list[Lost]:
    found = []
    for model, roots in sorted(versions.items()):
        objects = {name for root in roots for name in arrived.lacking.get(root, ())}
        if objects:
            found.append(Lost(model, tuple(sorted(objects))))
    return found


def _mend_data(store: Objects, kept: Kept, say: Say) -> tuple[str, ...]:
    """Remove wrong data that will be sent again; return what is wrong and stays."""
    spoilt = remove_spoilt(store, kept)
    for name in spoilt.removed:
        say(f"  {name} in DVC's part of the remote is wrong; it is sent again")
    for name in spoilt.left:
        say(f"  {name} in DVC's part of the remote is wrong; it is not in our cache, and stays")
    return spoilt.left


def _check_arrived(arrived: Arrived, own: Kept) -> None:
    """Hold what came back of a push, and what the workspace's own lock names.

    Raises:
        StoreError: bytes came back as others, or data that our lock names are not there.
    """
    if arrived.wrong:
        raise StoreError(
            f"The remote does not give data back as they were sent.{bullets(arrived.wrong)}",
            cause="our cache is spoilt, or the server's disk or the network is failing.",
            remedy="give `uni-moe push` again: what was wrong was removed there, and is sent anew; "
            "look at the disks if it stays so.",
        )
    if own.roots & arrived.lacking.keys():
        raise _lacking("push")


def _check_data(store: Objects, kept: Kept, left: tuple[str, ...]) -> None:
    """Tell what a push could not mend.

    Raises:
        StoreError: wrong data stayed in the remote, or data that a lock names is not there.
    """
    wrong, lacking = still_wrong(store, left), absent(store, kept)
    if wrong or lacking:
        named = [f"{name} is wrong" for name in wrong] + [f"{name} is absent" for name in lacking]
        raise StoreError(
            f"DVC's part of the remote is not whole.{bullets(named)}",
            cause="the bytes are not in this workspace's cache, or no lock here names them.",
            remedy="give `uni-moe push --verify` where the cache is whole, or on the version that "
            "made them; nothing of them was removed.",
        )


def _lacking(word: str) -> LackingError:
    """Return the error of data that are neither here nor there."""
    if word == "push":
        return LackingError(
            f"DVC could not push all data: its cache lacks files that {LOCK} names.",
            cause="the cache was cleared, or belongs to another machine.",
            remedy="let `dvc commit` take up artifacts/, or `dvc repro` make them again; then "
            "`uni-moe push`.",
        )
    return LackingError(
        f"DVC could not pull all data: the remote lacks files that {LOCK} names.",
        cause="the push that should have sent them did not end well, or they were removed there.",
        remedy="give `uni-moe push --verify` where they are, then `uni-moe pull` here; or let "
        "`dvc repro` make them again.",
    )
