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
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
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
    remove_whole,
    whole_folder,
    write_json,
    write_text,
)
from uni_moe.errors import StageError, unwritten
from uni_moe.machine import Machine
from uni_moe.progress import say
from uni_moe.records import canonical_json, sha256_text
from uni_moe.stage import StageContext

STATES = "states.jsonl"
_KEY = 16  # letters of the hash in a folder's name
_ANY_KEY = "[0-9a-f]" * _KEY
_FACTS = "state.json"
_HASHES = "hashes.json"
_TENSORS = "tensors.safetensors"
IsOurs = Callable[[int, Mapping[str, Any]], bool]


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
        spoiled: Callable[[Path], None] | None = None,
        *,
        keep: bool = False,
    ) -> None:
        """Keep the `last` so many states and the best.

        `record` is told of each once it is whole, by the thread that writes; `spoiled` of a folder
        whose bytes are no more what was written. With `keep` all states stay, also at the end.
        """
        self.folder, self._last, self._record, self._keep = folder, last, record, keep
        self._spoiled, self._sound = spoiled, set[Path]()
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

    def newest(self, is_ours: IsOurs | None = None) -> int | None:
        """Return the step of the newest state whose bytes are what was written; None without one.

        A spoiled state is told and passed over for the one before it. A disk does that, no kill: a
        state comes and goes by one rename. What came after the state that is taken has no trace.

        Args:
            is_ours: says of a step and its facts whether the training may go on from them; a state
                that is refused goes, unless all stay.
        """
        self.settle()
        folder = next(self._to_go_on_from(is_ours), None)
        step = _step_of(folder) if folder is not None else None
        self._cut(step or 0)
        if folder is not None and step is not None and step not in self.traces():
            # The process was killed before it could note it.
            self._note(step, read_json(folder / _FACTS)["loss"], read_json(folder / _HASHES))
        return step

    def _to_go_on_from(self, is_ours: IsOurs | None) -> Iterator[Path]:
        for folder in filter(self._is_sound, reversed(self._folders())):
            if is_ours is None or is_ours(_step_of(folder), read_json(folder / _FACTS)["facts"]):
                yield folder
            elif not self._keep:
                remove_whole(folder)

    def _is_sound(self, folder: Path) -> bool:
        """Look at a state's bytes; they are told where they are no more what was written."""
        trace = self.traces().get(_step_of(folder))
        if _is_whole(folder) and (trace is None or is_told(folder, trace)):
            self._sound.add(folder)
            return True
        if self._spoiled is not None:
            self._spoiled(folder)
        return False

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
        """Return the state of a step that `newest` returned, here or on the first rank.

        Raises:
            StageError: the first rank found it whole, and this one reads other bytes.
        """
        folder = self._place(step)
        if folder not in self._sound and not self._is_sound(folder):
            raise StageError(
                f"The training state {folder} is not whole where this process reads it.",
                cause="its bytes are not those that were written: they have not come here yet, or "
                "a disk or the network spoiled them.",
                remedy="let all nodes see one shared workspace, then give the same command again.",
            )
        facts = read_json(folder / _FACTS)
        tensors = load_file(folder / _TENSORS)
        return TrainingState(facts["step"], facts["loss"], tensors, facts["facts"])

    def clear(self) -> None:
        """Forget the training, and what the stage left under other keys: its artifact stands."""
        self.settle()
        if self._keep:
            return
        stage = self.folder.name.rpartition("-")[0]
        for folder in {self.folder, *trainings_in(self.folder.parent, stage)}:
            with suppress(OSError):  # a disk may hold on to what is read no more
                remove_whole(folder)

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
        self._keep_traces({**self.traces(), step: trace})
        if self._record is not None:
            self._record(trace)

    def _cut(self, step: int) -> None:
        """Drop the traces of what came after a step: it will not have been."""
        traces = self.traces()
        if any(one > step for one in traces):
            self._keep_traces({one: trace for one, trace in traces.items() if one <= step})

    def _keep_traces(self, traces: Mapping[int, Trace]) -> None:
        lines = (json.dumps(vars(traces[one])) + "\n" for one in sorted(traces))
        write_text(self.folder / STATES, "".join(lines))

    def _forget(self) -> None:
        """Remove states that need not stay."""
        if self._keep:
            return
        traces = self.traces()
        there = {step: folder for folder in self._folders() if (step := _step_of(folder)) in traces}
        for step in there.keys() - kept({step: traces[step].loss for step in there}, self._last):
            remove_whole(there[step])

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

    def spoiled(folder: Path) -> None:
        ctx.run.event("spoiled_state", folder=ctx.layout.name_of(folder))
        say(
            f"{ctx.layout.name_of(folder)} is passed over: its bytes are not those that were "
            "written; the training goes on from a state before it, or from its start"
        )

    folder = ctx.layout.state / f"{ctx.name}-{key}"
    keep, last = ctx.machine.keep_states, ctx.machine.last_states
    return StateStore(folder, last, record, spoiled, keep=keep)


def rows_of(file: Path) -> dict[int, dict[str, Any]]:
    """Return step -> what an artifact's `states.jsonl` tells of the state that stood there."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return {row["step"]: row for row in map(json.loads, lines)}


def whole_states(folder: Path) -> dict[int, Path]:
    """Return step -> the folder of every state of a training that is kept and whole."""
    there = sorted(folder.glob("step-*"))
    return {_step_of(one): one for one in there if _is_whole(one)}


def facts_of(folder: Path) -> dict[str, Any]:
    """Return the facts that a state keeps beside its tensors."""
    found: dict[str, Any] = read_json(folder / _FACTS)["facts"]
    return found


def is_told(folder: Path, trace: Trace) -> bool:
    """Say whether a state that is whole is the one that its training's trace tells of."""
    told: object = read_json(folder / _HASHES)
    return told == dict(trace.files)


def _step_of(folder: Path) -> int:
    return int(folder.name.partition("-")[2])


def states_in(layout: Layout) -> Iterator[tuple[str, Path]]:
    """Give the stage and the folder of every training whose states a workspace keeps."""
    for folder in filter(Path.is_dir, trainings_in(layout.state, "*")):
        yield folder.name.rpartition("-")[0], folder


def trainings_in(folder: Path, stage: str) -> list[Path]:
    """Return where a stage's trainings lie, or lay, if one was killed while it removed them."""
    half_gone = (
        left.with_name(left.stem.removeprefix("."))
        for left in folder.glob(f".{stage}-{_ANY_KEY}.{'?' * 32}")
    )
    return sorted({*folder.glob(f"{stage}-{_ANY_KEY}"), *half_gone})


def _is_whole(folder: Path) -> bool:
    found = {name: digest for name, digest in files_of(folder).items() if name != _HASHES}
    try:
        told: object = read_json(folder / _HASHES)
    except (OSError, ValueError):
        return False
    return told == found
