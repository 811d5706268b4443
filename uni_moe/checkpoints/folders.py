"""Model folders, donors and adapters, read whole; a folder written with its receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from uni_moe.artifacts import whole_folder, write_json
from uni_moe.checkpoints.descent import sign
from uni_moe.checkpoints.published_adapters import check_peft
from uni_moe.checkpoints.tables import read_table
from uni_moe.checkpoints.tensors import TensorFile, write_shards
from uni_moe.checkpoints.whole import read_config, whole_model
from uni_moe.errors import ConfigError
from uni_moe.model.assembly import RECEIPT
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.merging import ADAPTER_CONFIG, ADAPTER_FILES

_KEEP = (".json", ".model", ".txt", ".jinja")  # what stands beside the weights
_STALE = ("card.json", "config.json", RECEIPT)  # … and is true of the old ones alone


def read_model(folder: Path) -> tuple[UniMoeConfig, dict[str, Tensor]]:
    """Return a model's configuration and its tensors.

    Raises:
        ConfigError: the folder holds no model of ours.
        LineageError: the tensors are not those that the configuration describes.
    """
    config = read_config(folder)
    return config, _tensors(whole_model(folder, config))


def read_donor(place: Path) -> dict[str, Tensor]:
    """Return a donor's tensors: a model folder, or the file of a trained expert."""
    if place.is_dir():
        return read_model(place)[1]
    if not place.is_file():
        raise ConfigError(
            f"There is no donor {place}.",
            cause="a donor is a model's folder, or the file of a trained expert.",
            remedy="give the path of one; PATH#2 names slot 2 of a model.",
        )
    return _tensors([TensorFile(place)])


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the configuration and the tensors of an adapter in peft's layout.

    Raises:
        ConfigError: the folder holds none.
        DataError: a file is broken, or it is no plain low-rank adapter.
    """
    file = next((folder / name for name in ADAPTER_FILES if (folder / name).is_file()), None)
    config = folder / ADAPTER_CONFIG
    if file is None or not config.is_file():
        raise ConfigError(
            f"{folder} holds no adapter.",
            cause=f"{ADAPTER_CONFIG} or {ADAPTER_FILES[0]} is missing.",
            remedy="give the folder that a training or peft's save_pretrained wrote.",
        )
    told = read_table(config)
    check_peft(told, file)
    return told, _tensors([TensorFile(file)])


def write_model(  # noqa: PLR0913 - what is written, and what it was made from
    model: Path,
    out: Path,
    config: UniMoeConfig,
    state: Mapping[str, Tensor],
    receipt: Mapping[str, Any],
    donors: Sequence[Path] = (),
) -> Mapping[str, Any]:
    """Write a model beside the other files of the one it was made from; return the receipt.

    Its card names that one and the donors.
    """
    with whole_folder(out) as draft:
        for file in sorted(model.iterdir()):
            is_index = file.name.endswith(".index.json")
            if file.suffix in _KEEP and file.name not in _STALE and not is_index:
                (draft / file.name).write_bytes(file.read_bytes())
        write_shards(draft, iter(sorted(state.items())))
        config.save_pretrained(draft)
        write_json(draft / RECEIPT, receipt)
        params = {"operation": receipt["operation"]}
        sign(draft, (model, *donors), stage="surgery", kind="model", params=params)
    return receipt


def _tensors(files: Sequence[TensorFile]) -> dict[str, Tensor]:
    return {name: file.read(name) for file in files for name in file.shapes}
