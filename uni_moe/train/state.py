"""Training states: what resume needs, whole or absent, outside the artifacts.

A state lives under the hash of everything that its training depends on, so it can never continue
the wrong thing. Its tensors are whole, under their names, so any number of processes goes on from
it. They are safetensors; nothing is pickled. Random numbers follow from seed, step and rank, and
the order of examples from the step, so neither is kept.

The last so many states stay, and the best: the one whose steps since the state before it had the
least mean loss. Validating at every state would cost more than it tells. The hash of every state
that ever was stays for good: in the run's events, and of its tensors in the artifact. The machine
profile may keep all states, too: a verification starts from them.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from uni_moe.artifacts import (
    Layout,
    code_hash,
    files_of,
    read_json,
    whole_folder,
    write_json,
    write_text,
)
from uni_moe.errors import unwritten
from uni_moe.machine import Machine
from uni_moe.records import canonical_json, sha256_text
from uni_moe.stage import StageContext

STATES = "states.jsonl"
_KEY = 16  # letters of the hash in a folder's name
_ANY_KEY = "[0-9a-f]" * _KEY
_FACTS = "state.json"
_HASHES = "hashes.json"
_TENSORS = "tensors.safetensors"


@dataclass(frozen=True)
class TrainingState:
    """A position in a training: steps done, tensors by name, and facts found on the way.

    The tensors lie on the CPU and nobody writes to them: they may still be on their way to a disk.
    `loss` is the mean of the steps since the state before it.
    """

    step: int
    loss: float
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Trace:
    """What stays of a state when it is gone: the hashes of its files."""

    step: int
    loss: float
    files: Mapping[str, str]

    @property
    def row(self) -> dict[str, Any]:
        """What an artifact keeps of it."""
        return {"step": self.step, "loss": self.loss, "sha256": self.files[_TENSORS]}


class StateStore:
    """The states of one training, newest last. It writes beside the training that goes on.

    `states.jsonl` keeps the trace of every state that ever was, also of those that are gone.
    """

    def __init__(
        self,
        folder: Path,
        last: int = Machine.last_states,
        record: Callable[[Trace], None] | None = None,
        *,
        keep: bool = False,
    ) -> None:
        """Keep the `last` so many states and the best; `record` is told of each once it is whole.

        It is told by the thread that writes. With `keep` all states stay, also at the end.
        """
        self.folder, self._last, self._record, self._keep = folder, last, record, keep
        self._writer: threading.Thread | None = None
        self._trouble: Exception | None = None

    def save(self, state: TrainingState) -> None:
        """Begin to write a state; its tensors are its own, so training may go on.

        Raises:
            StageError: the state before this one could not be written.
        """
        self.settle()
        about = {"step": state.step, "loss": state.loss, "facts": dict(state.facts)}
        facts = json.loads(json.dumps(about))
        args = state.step, state.tensors, facts
        self._writer = threading.Thread(target=self._write, args=args)
        self._writer.start()

    def settle(self) -> None:
        """Wait until what was saved is on the disk.

        Raises:
            StoreError: the disk is full; the states before it are as they were.
            StageError: it could not be written; the states before it are as they were.
        """
        self.wait()
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            what = f"A training state could not be written to {self.folder}: {trouble}"
            raise unwritten(trouble, what) from trouble

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
        if folder is None:
            return None
        step = _step_of(folder)
        if step not in self.traces():  # the process was killed before it could note it
            self._note(step, read_json(folder / _FACTS)["loss"], read_json(folder / _HASHES))
        return step

    def traces(self) -> dict[int, Trace]:
        """Return step -> what is known of every state that ever was, in their order."""
        file = self.folder / STATES
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return {trace.step: trace for trace in (Trace(**json.loads(line)) for line in lines)}

    def write(self, folder: Path) -> None:
        """Write into an artifact which tensors each state held, by their hash: a line for each.

        How often a training was stopped, and on which machine it ran, do not show in the bytes.
        """
        self.settle()
        rows = (json.dumps(one.row) + "\n" for one in self.traces().values())
        write_text(folder / STATES, "".join(rows))

    def at(self, step: int) -> TrainingState:
        """Return the state of a step that `newest` returned."""
        folder = self._place(step)
        facts = read_json(folder / _FACTS)
        tensors = load_file(folder / _TENSORS)
        return TrainingState(facts["step"], facts["loss"], tensors, facts["facts"])

    def clear(self) -> None:
        """Forget the training, and what the stage left under other keys: its artifact stands."""
        self.settle()
        if self._keep:
            return
        stage = self.folder.name.rpartition("-")[0]
        others = self.folder.parent.glob(f"{stage}-{_ANY_KEY}")
        for folder in {self.folder, *others}:
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        try:
            with whole_folder(self._place(step)) as draft:
                save_file({n: t.contiguous() for n, t in tensors.items()}, draft / _TENSORS)
                write_json(draft / _FACTS, facts)
                hashes = files_of(draft)
                write_json(draft / _HASHES, hashes)
            self._note(step, facts["loss"], hashes)
            self._forget()
        except Exception as error:  # noqa: BLE001 - told by the training's own thread
            self._trouble = error

    def _note(self, step: int, loss: float, files: Mapping[str, str]) -> None:
        """Keep the trace of a state that is whole; one of the same step before it was torn."""
        trace = Trace(step, loss, files)
        traces = {**self.traces(), step: trace}
        lines = (json.dumps(vars(traces[one])) + "\n" for one in sorted(traces))
        write_text(self.folder / STATES, "".join(lines))
        if self._record is not None:
            self._record(trace)

    def _forget(self) -> None:
        """Remove states that need not stay."""
        if self._keep:
            return
        traces = self.traces()
        there = {step: folder for folder in self._folders() if (step := _step_of(folder)) in traces}
        for step in there.keys() - kept({step: traces[step].loss for step in there}, self._last):
            shutil.rmtree(there[step])

    def _place(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("step-*")) if self.folder.is_dir() else []


def kept(losses: Mapping[int, float], last: int) -> set[int]:
    """Return which steps' states stay: the last so many, and the first of those that lose least."""
    best = sorted(losses, key=lambda step: (losses[step], step))[:1]
    return {*sorted(losses)[-last:], *best}


def open_states(
    ctx: StageContext, params: Mapping[str, Any], parents: Mapping[str, str]
) -> StateStore:
    """Return the states of exactly this training: same stage, parameters, inputs and code."""
    identity = {"stage": ctx.name, "params": params, "parents": parents, "code": code_hash()}
    key = sha256_text(canonical_json(identity))[:_KEY]

    def record(trace: Trace) -> None:
        ctx.run.event("state", **vars(trace))

    folder = ctx.layout.state / f"{ctx.name}-{key}"
    return StateStore(folder, ctx.machine.last_states, record, keep=ctx.machine.keep_states)


def rows_of(file: Path) -> dict[int, dict[str, Any]]:
    """Return step -> what an artifact's `states.jsonl` tells of the state that stood there."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return {row["step"]: row for row in map(json.loads, lines)}


def whole_states(folder: Path) -> dict[int, Path]:
    """Return step -> the folder of every state of a training that is kept and whole."""
    there = sorted(folder.glob("step-*"))
    return {_step_of(one): one for one in there if _is_whole(one)}


def _step_of(folder: Path) -> int:
    return int(folder.name.partition("-")[2])


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
