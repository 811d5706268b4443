"""Whole folders: none is written over, and each holds the network that it says it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from uni_moe.checkpoints.tables import read_table
from uni_moe.checkpoints.tensors import Shape, TensorFile, shards_of
from uni_moe.errors import ConfigError, LineageError, bullets
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.describing import telling_of
from uni_moe.model.network import UniMoeForConditionalGeneration


def check_absent(out: Path) -> None:
    """Refuse to write over something.

    Raises:
        ConfigError: it is there.
    """
    if out.exists():
        raise ConfigError(
            f"{out} exists.",
            cause="nothing is ever written over something.",
            remedy="name another folder.",
        )


def read_config(folder: Path) -> UniMoeConfig:
    """Return a model's configuration.

    Raises:
        ConfigError: the folder holds no model of ours, or sizes do not fit each other.
        DataError: config.json is broken.
    """
    file = folder / "config.json"
    told = read_table(file) if file.is_file() else {}
    kind = told.get("model_type")
    if kind != UniMoeConfig.model_type:
        raise ConfigError(
            f"{folder} holds no model of ours.",
            cause=f"config.json says {kind!r}." if told else "there is no config.json.",
            remedy="give a folder that a training, an import or save_pretrained wrote; a published "
            "one becomes ours by `uni-moe import-official`.",
        )
    with telling_of(file):
        return UniMoeConfig.from_pretrained(folder)


def wanted(config: UniMoeConfig) -> dict[str, Shape]:
    """Return name -> shape of a network's tensors, without their memory."""
    with torch.device("meta"):
        model = UniMoeForConditionalGeneration(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def whole_model(folder: Path, config: UniMoeConfig) -> list[TensorFile]:
    """Return the files of a model all of whose tensors are there.

    Raises:
        ConfigError: the folder holds no weights.
        LineageError: a tensor is missing, strange, or of another shape; all of them at once.
        DataError: a shard is missing or broken.
    """
    paths = shards_of(folder)
    if not paths:
        raise ConfigError(
            f"{folder} holds no weights.",
            cause="neither model.safetensors nor an index of shards lies there.",
            remedy="give a folder that a training, an import or save_pretrained wrote.",
        )
    files = [TensorFile(path) for path in paths]
    found = {name: shape for file in files for name, shape in file.shapes.items()}
    with telling_of(folder / "config.json"):
        needed = wanted(config)
    problems = list(_differences(found, needed))
    if problems:
        raise LineageError(
            f"The weights in {folder} are not those that its config.json describes:"
            f"{bullets(problems)}",
            cause="a shard was not copied, or the two were written by different models.",
            remedy="copy the folder again, or take the config.json that was saved with it.",
        )
    return files


def _differences(found: Mapping[str, Shape], needed: Mapping[str, Shape]) -> Iterator[str]:
    for name in sorted({*found, *needed}):
        if name not in found:
            yield f"missing: {name}"
        elif name not in needed:
            yield f"unknown: {name}"
        elif found[name] != needed[name]:
            yield f"{name} is {found[name]}, the network takes {needed[name]}"
