"""Training states: what resume needs, whole or absent, outside the artifacts.

A state lives under the hash of everything that its training depends on, so it can never continue
the wrong thing. Tensors are safetensors; nothing is pickled.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from uni_moe.artifacts import code_hash, files_of, read_json, whole_folder, write_json
from uni_moe.records import canonical_json, sha256_text
from uni_moe.stage import StageContext

KEEP = 2
_KEY = 16  # letters of the hash in a folder's name
_FACTS = "state.json"
_HASHES = "hashes.json"
_TENSORS = "tensors.safetensors"
_RANDOM = "random/"


@dataclass(frozen=True)
class TrainingState:
    """A position in a training: steps done, tensors by name, and facts found on the way."""

    step: int
    tensors: Mapping[str, Tensor]
    random: Mapping[str, Tensor]  # device -> state
    facts: Mapping[str, Any]


class StateStore:
    """The states of one training, newest last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: TrainingState) -> None:
        """Write a state, then drop all but the last few."""
        target = self.folder / f"step-{state.step:08d}"
        with whole_folder(target) as draft:
            tensors = {name: t.detach().cpu().contiguous() for name, t in state.tensors.items()}
            tensors |= {_RANDOM + place: one for place, one in state.random.items()}
            save_file(tensors, draft / _TENSORS)
            write_json(draft / _FACTS, {"step": state.step, "facts": dict(state.facts)})
            write_json(draft / _HASHES, files_of(draft))
        for old in self._folders()[:-KEEP]:
            shutil.rmtree(old)

    def latest(self) -> TrainingState | None:
        """Return the newest state whose bytes are what was written, None where there is none.

        A torn state is passed over for the one before it: it can only come from a broken disk,
        because a state appears by one rename.
        """
        for folder in reversed(self._folders()):
            found = {name: h for name, h in files_of(folder).items() if name != _HASHES}
            if _hashes(folder) != found:
                continue
            facts = read_json(folder / _FACTS)
            tensors = load_file(folder / _TENSORS)
            places = [name for name in tensors if name.startswith(_RANDOM)]
            random = {name.removeprefix(_RANDOM): tensors.pop(name) for name in places}
            return TrainingState(facts["step"], tensors, random, facts["facts"])
        return None

    def clear(self) -> None:
        """Forget the training, and what the stage left under other keys: its artifact stands."""
        stage = self.folder.name.rpartition("-")[0]
        others = self.folder.parent.glob(f"{stage}-{'[0-9a-f]' * _KEY}")
        for folder in {self.folder, *others}:
            shutil.rmtree(folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("step-*")) if self.folder.is_dir() else []


def open_states(
    ctx: StageContext, params: Mapping[str, Any], parents: Mapping[str, str]
) -> StateStore:
    """Return the states of exactly this training: same stage, parameters, inputs and code."""
    identity = {"stage": ctx.name, "params": params, "parents": parents, "code": code_hash()}
    key = sha256_text(canonical_json(identity))[:_KEY]
    return StateStore(ctx.layout.state / f"{ctx.name}-{key}")


def random_state() -> dict[str, Tensor]:
    """Return torch's random states: the CPU's, and every accelerator's that has one."""
    found = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        found |= {f"cuda:{i}": one for i, one in enumerate(torch.cuda.get_rng_state_all())}
    return found


def restore_random(states: Mapping[str, Tensor]) -> None:
    """Put back what `random_state` returned; devices that are not here are left out."""
    torch.set_rng_state(states["cpu"])
    for i in range(torch.cuda.device_count()):
        if f"cuda:{i}" in states:
            torch.cuda.set_rng_state(states[f"cuda:{i}"], i)


def _hashes(folder: Path) -> Any:  # noqa: ANN401 - JSON, or None where it is absent or torn
    try:
        return read_json(folder / _HASHES)
    except (OSError, ValueError):
        return None
