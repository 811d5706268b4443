"""The published BEATs: one file of its own, read for a checkpoint or made a folder of ours."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from uni_moe.artifacts import whole_folder, write_json
from uni_moe.checkpoints.tensors import Shape, TensorFile, write_shards
from uni_moe.checkpoints.whole import check_absent
from uni_moe.errors import DataError
from uni_moe.model.encoders.beats import Beats
from uni_moe.model.published.config import beats_from_published
from uni_moe.model.published.plan import ImportPlan, bring_in, plan_import

HEARING = "model.audio_tower.audio_tower."
_OURS = "audio_tower."
_BROKEN = (
    *(pickle.UnpicklingError, OSError, EOFError),
    *(RuntimeError, KeyError, TypeError, ValueError, AttributeError),
)


class BeatsFile(TensorFile):
    """The published BEATs file: {"cfg": its sizes, "model": its weights}.

    Raises:
        DataError: it is broken, holds something else, or wants to run code.
        ConfigError: it is of another architecture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
            cfg = dict(found["cfg"])
            self._loaded: Mapping[str, Tensor] = dict(found["model"])
            self.shapes: dict[str, Shape] = {n: tuple(t.shape) for n, t in self._loaded.items()}
        except _BROKEN as error:
            raise DataError(
                f"{path} is no BEATs checkpoint: {str(error).partition(chr(10))[0]}",
                cause='it should hold {"cfg": …, "model": …} and nothing that runs code.',
                remedy="fetch BEATs_iter3_plus_AS2M.pt again.",
            ) from error
        self.config = beats_from_published(cfg)

    def stored(self) -> dict[str, str]:
        """Return published name -> where it stands, for a person."""
        return {HEARING + name: f"{self.path.name}: {name}" for name in self.shapes}

    def plan(self) -> ImportPlan:
        """Say what becomes of every tensor."""
        with torch.device("meta"):
            network = Beats(self.config)
        wanted = {_OURS + name: tuple(t.shape) for name, t in network.state_dict().items()}
        found = {HEARING + name: shape for name, shape in self.shapes.items()}
        return plan_import(found, wanted, "audio")


def import_beats(file: BeatsFile, out: Path) -> dict[str, int]:
    """Write a published BEATs as a folder that `foundation.audio.pretrained` takes.

    Raises:
        ConfigError: `out` exists.
        LineageError: a tensor is missing, unknown or of another shape.
    """
    check_absent(out)
    plan = file.plan()
    tensors = bring_in(plan, lambda name: file.read(name.removeprefix(HEARING)))
    plan.check()
    with whole_folder(out) as draft:
        sizes = write_shards(draft, ((n.removeprefix(_OURS), t.clone()) for n, t in tensors))
        file.config.architectures = ["Beats"]
        file.config.save_pretrained(draft)
        write_json(draft / "import.json", {"used": plan.places(), "ignored": dict(plan.ignored)})
    return sizes
