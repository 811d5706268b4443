"""A workspace for a while, beside the real one: stages run in it as they ran there, nothing stays.

It lies beside, so that paths that lead out of a workspace lead to the same place. What a
verification that was killed left is removed by the next one.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import yaml

from uni_moe import leash
from uni_moe.artifacts import Layout, write_text
from uni_moe.errors import StageError, unwritten
from uni_moe.platform import TOLD_ROUTES
from uni_moe.verify.code import own_code

_LOOK_S = 0.1
_ENDS_S = 5.0
_LAST_LINES = 15
_OWN = ("artifacts", "runs", "state", "store")


@contextmanager
def beside(root: Path) -> Iterator[Path]:
    """Give an empty folder beside a workspace, and remove it at the end.

    Raises:
        StageError: nobody may write there.
        StoreError: the disk is full.
    """
    begin = f".{root.name}.verify-"
    for left in root.parent.glob(f"{begin}*"):
        _sweep(left)
    try:
        folder = Path(tempfile.mkdtemp(prefix=begin, dir=root.parent))
    except OSError as error:
        raise unwritten(error, f"A folder beside {root} could not be made: {error}") from error
    with (folder / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(left: Path) -> None:
    """Remove what nobody works in any more."""
    try:
        with (left / "lock").open("r") as stream:  # without it, somebody is just beginning
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
    except OSError:
        return  # somebody does


class Scratch:
    """A scratch workspace at work."""

    def __init__(self, root: Path, real: Path) -> None:
        """Take a folder of its own for the workspace `real`."""
        self.layout, self._real = Layout(root), real

    def link(self, paths: Iterable[str]) -> None:
        """Let files and folders of the real workspace be seen here, under the same names.

        Full paths and those that lead out of the workspace need nothing.
        """
        for path in paths:
            parts = PurePath(path).parts
            if PurePath(path).is_absolute() or not parts or parts[0] == "..":
                continue
            depth = len(parts) if parts[0] in _OWN else 1
            here, there = (root.joinpath(*parts[:depth]) for root in (self.layout.root, self._real))
            if there.exists() and not here.exists():
                here.parent.mkdir(parents=True, exist_ok=True)
                here.symlink_to(there)

    def run(
        self,
        stage: str,
        params: Mapping[str, Any],
        spread: Mapping[str, Any],
        routes: Mapping[str, Any] | None,
        until: Callable[[], bool] = lambda: False,
    ) -> None:
        """Run a stage in a process of its own, to its end or until something has come.

        Args:
            stage: its name.
            params: plain params.
            spread: how it is spread over processes: keys of machine.yaml.
            routes: what it computes by; None lets it choose by its params.
            until: asked again and again; the stage is ended when it says so.

        Raises:
            StageError: the stage failed; it says what the stage said.
        """
        root = self.layout.root
        write_text(self.layout.params, yaml.safe_dump(dict(params), sort_keys=False))
        profile, said = root / "machine.yaml", root / "said.log"
        write_text(profile, yaml.safe_dump(dict(spread)))
        words = ["--workspace", str(root), "--machine", str(profile), stage]
        with said.open("w", encoding="utf-8") as output:
            told = {"UNI_MOE_REASON": "verify", **own_code()}
            if routes is not None:
                told[TOLD_ROUTES] = json.dumps(dict(routes))
            with leash.start("uni_moe", words, folder=root, environment=told, output=output) as one:
                try:
                    while one.poll() is None and not until():
                        time.sleep(_LOOK_S)
                    ended = one.poll()
                finally:
                    leash.end(one, _ENDS_S)
        if ended:
            raise _failed(stage, said)


def _failed(stage: str, said: Path) -> StageError:
    lines = said.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
    return StageError(
        f"{stage} could not be run again. Its last lines:\n    " + "\n    ".join(lines),
        cause="the lines above say it. No verdict was found, and nothing is told to the log.",
        remedy="mend that, then verify again.",
    )
