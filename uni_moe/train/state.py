"""Training states: what resume needs, whole or absent, outside the artifacts.

A state lives under the hash of everything that its training depends on, so it can never continue
the wrong thing. Its tensors are whole, under their names, so any number of processes goes on from
it. They are safetensors; nothing is pickled. Random numbers follow from seed, step and rank, and
the order of examples from the step, so neither is kept.
"""

from __future__ import annotations

import errno
import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from uni_moe.artifacts import Layout, code_hash, files_of, read_json, whole_folder, write_json
from uni_moe.errors import StageError
from uni_moe.records import canonical_json, sha256_text
from uni_moe.stage import StageContext

KEEP = 2
_KEY = 16  # letters of the hash in a folder's name
_ANY_KEY = "[0-9a-f]" * _KEY
_FACTS = "state.json"
_HASHES = "hashes.json"
_TENSORS = "tensors.safetensors"
_LOG = "states.jsonl"


@dataclass(frozen=True)
class TrainingState:
    """A position in a training: steps done, tensors by name, and facts found on the way."""

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


class StateStore:
    """The states of one training, newest last. It writes beside the training that goes on.

    `states.jsonl` keeps the hash of every state that ever was, also of those that are gone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: threading.Thread | None = None
        self._trouble: Exception | None = None

    def save(self, state: TrainingState) -> None:
        """Begin to write a state; what it holds is copied first, so training may go on.

        Raises:
            StageError: the state before this one could not be written.
        """
        self.settle()
        tensors = {name: t.detach().to("cpu", copy=True) for name, t in state.tensors.items()}
        facts = json.loads(json.dumps({"step": state.step, "facts": dict(state.facts)}))
        self._writer = threading.Thread(target=self._write, args=(state.step, tensors, facts))
        self._writer.start()

    def settle(self) -> None:
        """Wait until what was saved is on the disk.

        Raises:
            StageError: it could not be written; the states before it are as they were.
        """
        self.wait()
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            full = isinstance(trouble, OSError) and trouble.errno in (errno.ENOSPC, errno.EDQUOT)
            raise StageError(
                f"A training state could not be written to {self.folder}: {trouble}",
                cause="the disk is full." if full else "the disk or its file system refused it.",
                remedy="make room or mend it, then run the same command: it goes on from the last "
                "whole state.",
            ) from trouble

    def wait(self) -> None:
        """Wait until nothing is being written, however it ends."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def newest(self) -> int | None:
        """Return the step of the newest state whose bytes are what was written; None without one.

        A torn state is passed over for the one before it: it can only come from a broken disk,
        because a state appears by one rename.
        """
        self.settle()
        whole = (folder for folder in reversed(self._folders()) if _is_whole(folder))
        folder = next(whole, None)
        return None if folder is None else int(folder.name.partition("-")[2])

    def at(self, step: int) -> TrainingState:
        """Return the state of a step that `newest` returned."""
        folder = self._place(step)
        facts = read_json(folder / _FACTS)
        return TrainingState(facts["step"], load_file(folder / _TENSORS), facts["facts"])

    def clear(self) -> None:
        """Forget the training, and what the stage left under other keys: its artifact stands."""
        self.settle()
        stage = self.folder.name.rpartition("-")[0]
        others = self.folder.parent.glob(f"{stage}-{_ANY_KEY}")
        for folder in {self.folder, *others}:
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self, step: int, tensors: dict[str, Tensor], facts: Mapping[str, Any]) -> None:
        try:
            with whole_folder(self._place(step)) as draft:
                save_file({n: t.contiguous() for n, t in tensors.items()}, draft / _TENSORS)
                write_json(draft / _FACTS, facts)
                hashes = files_of(draft)
                write_json(draft / _HASHES, hashes)
            with (self.folder / _LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": step, "files": hashes}) + "\n")
            for old in self._folders()[:-KEEP]:
                shutil.rmtree(old)
        except Exception as error:  # noqa: BLE001 - told by the training's own thread
            self._trouble = error

    def _place(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("step-*")) if self.folder.is_dir() else []


def open_states(
    ctx: StageContext, params: Mapping[str, Any], parents: Mapping[str, str]
) -> StateStore:
    """Return the states of exactly this training: same stage, parameters, inputs and code."""
    identity = {"stage": ctx.name, "params": params, "parents": parents, "code": code_hash()}
    key = sha256_text(canonical_json(identity))[:_KEY]
    return StateStore(ctx.layout.state / f"{ctx.name}-{key}")


def states_in(layout: Layout) -> Iterator[tuple[str, Path]]:
    """Give the stage and the folder of every training whose states a workspace keeps."""
    for folder in sorted(layout.state.glob(f"*-{_ANY_KEY}")):
        yield folder.name.rpartition("-")[0], folder


def _is_whole(folder: Path) -> bool:
    found = {name: digest for name, digest in files_of(folder).items() if name != _HASHES}
    try:
        told: object = read_json(folder / _HASHES)
    except (OSError, ValueError):
        return False
    return told == found
