"""What lies in a published checkpoint's folder, and under which name each tensor counts.

Source: the files of a stage-3 output folder, of a base folder, and of the 8-expert release. Later
files win, in the order in which the published loader reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from uni_moe.checkpoints.tensors import Shape, TensorFile, shards_of
from uni_moe.errors import DataError

_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_FIRST = ("mm_projector.bin", "non_lora_trainables.bin")
_LAST = ("mm_audio_aligner.bin", "mlp_gates.bin", "fm_adapter.bin")
_RANK_FILE = re.compile(r"(\d+)_mlp_experts\.bin")
_LORA = re.compile(r"(?P<target>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")
_BUILT_IN_LORA = re.compile(r"(?P<target>.+_proj)_lora_(?P<side>[AB])\.weight")
_LOCAL = re.compile(r"(.*\.deepspeed_experts\.)(\d+)(\..*)")


@dataclass(frozen=True)
class Source:
    """A tensor in a file."""

    file: TensorFile
    name: str

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.file.shapes[self.name]

    def read(self) -> Tensor:
        """Return the tensor."""
        return self.file.read(self.name)

    def __str__(self) -> str:
        """Return the file's name and the tensor's."""
        return f"{self.file.path.name}: {self.name}"


@dataclass
class Delta:
    """A low-rank adapter of one weight: W + scale * B A."""

    scale: float
    a: Source | None = None
    b: Source | None = None


@dataclass
class Published:
    """A published checkpoint, nothing merged yet.

    `weights` maps the published name to the tensor that counts, `deltas` the name of a weight to
    its adapters, `replaced` names tensors that a later file overrides.
    """

    config: Mapping[str, Any]
    weights: dict[str, Source] = field(default_factory=dict)
    deltas: dict[str, list[Delta]] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)

    def put(self, name: str, source: Source) -> None:
        """Note a tensor; it takes the place of an earlier one."""
        if name in self.weights:
            self.replaced.append(f"{self.weights[name]} (by {source.file.path.name})")
        self.weights[name] = source


def read_published(folders: Sequence[Path]) -> Published:
    """Look into a checkpoint's folders, base first; a later one's files win.

    Raises:
        DataError: there is no config.json or no shard, or a file is broken.
    """
    config: dict[str, Any] = {}
    for folder in folders:
        if (folder / "config.json").is_file():
            config |= _json(folder / "config.json")
    shards = [path for folder in folders for path in shards_of(folder)]
    if not config or not shards:
        missing = "config.json" if not config else "shard (model*.safetensors, pytorch_model*.bin)"
        raise DataError(
            f"There is no {missing} in {', '.join(map(str, folders))}.",
            cause="this is no published checkpoint, or it was not fetched whole.",
            remedy="give the folder of the base weights as --base when FOLDER is an adapter's.",
        )
    found = Published(config)
    for path in shards:
        _put_all(found, path)
    for folder in folders:
        _put_named(found, folder, _FIRST)
        _put_rank_files(found, folder)
        _put_adapter(found, folder)
    for folder in folders:
        _put_named(found, folder, _LAST)
    return found


def _put_named(found: Published, folder: Path, names: Sequence[str]) -> None:
    for name in names:
        if (folder / name).is_file():
            _put_all(found, folder / name)


def _put_all(found: Published, path: Path) -> None:
    file = TensorFile(path)
    for name in file.shapes:
        _put(found, _plain(name), Source(file, name))


def _put(found: Published, name: str, source: Source) -> None:
    """Note a tensor as a weight, or as one half of an adapter that lives beside its weight."""
    built_in = _BUILT_IN_LORA.fullmatch(name)
    if built_in is None:
        found.put(name, source)
        return
    rank, alpha = found.config.get("lora_r"), found.config.get("lora_alpha")
    if not rank or not alpha:
        raise DataError(
            f"{source} is an adapter, but config.json does not say its scale.",
            cause="`lora_r` and `lora_alpha` are missing.",
            remedy="take the config.json of the 8-expert release.",
        )
    _half(found, built_in["target"] + ".weight", built_in["side"], source, alpha / rank)


def _put_rank_files(found: Published, folder: Path) -> None:
    """Each rank of the 8-expert training wrote its own experts, numbered from 0."""
    ranks = {
        int(match[1]): path
        for path in folder.glob("*_mlp_experts.bin")
        if (match := _RANK_FILE.fullmatch(path.name))
    }
    for rank, path in sorted(ranks.items()):
        file = TensorFile(path)
        local = [int(match[2]) for name in file.shapes if (match := _LOCAL.fullmatch(_plain(name)))]
        own = max(local, default=0) + 1
        for name in file.shapes:
            match = _LOCAL.fullmatch(_plain(name))
            counted = f"{match[1]}{rank * own + int(match[2])}{match[3]}" if match else _plain(name)
            _put(found, counted, Source(file, name))


def _put_adapter(found: Published, folder: Path) -> None:
    path = next((folder / name for name in _ADAPTERS if (folder / name).is_file()), None)
    if path is None:
        return
    if not (folder / "adapter_config.json").is_file():
        raise DataError(
            f"{path} stands without adapter_config.json.",
            cause="without its rank and alpha an adapter has no scale.",
            remedy="fetch adapter_config.json into the folder.",
        )
    told = _json(folder / "adapter_config.json")
    file = TensorFile(path)
    for name in file.shapes:
        match = _LORA.fullmatch(_plain(name))
        if match is None:
            _put(found, _plain(name), Source(file, name))
            continue
        scale = told["lora_alpha"] / told["r"]
        _half(found, match["target"] + ".weight", match["side"], Source(file, name), scale)


def _half(found: Published, target: str, side: str, source: Source, scale: float) -> None:
    """Put A and B of one file together."""
    deltas = found.deltas.setdefault(target, [])
    own = next((d for d in deltas if (d.a or d.b).file is source.file), None)  # type: ignore[union-attr]
    if own is None:
        own = Delta(scale)
        deltas.append(own)
    if side == "A":
        own.a = source
    else:
        own.b = source


def _plain(name: str) -> str:
    """Take away what peft and the trainer put in front of a name."""
    name = name.removeprefix("base_model.model.")
    return name.removeprefix("model.") if name.startswith("model.model.") else name


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{path} is not JSON: {error}",
            cause="the file was not fetched whole, or was changed by hand.",
            remedy="fetch it again.",
        ) from error
    if not isinstance(data, dict):
        raise DataError(
            f"{path} holds no keys and values.",
            cause="it is not what its name says.",
            remedy="fetch it again.",
        )
    return data


def half_adapters(deltas: Mapping[str, Sequence[Delta]]) -> Iterator[str]:
    """Return the adapters whose other half is missing, for a person."""
    for target, own in sorted(deltas.items()):
        for delta in own:
            if delta.a is None or delta.b is None:
                yield f"the adapter of {target} has no {'A' if delta.a is None else 'B'}"
