"""Files of tensors, read without running code. Nothing is held in memory that is not asked for."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from uni_moe.artifacts import write_json
from uni_moe.errors import DataError

Shape = tuple[int, ...]
MOST_BYTES = 5_000_000_000  # of one shard


class TensorFile:
    """One file of tensors by name: safetensors, or torch's own format with weights alone.

    Raises:
        DataError: the file is broken, or wants to run code when it is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._loaded: Mapping[str, Tensor] | None = None
        if path.suffix == ".safetensors":
            self.shapes = self._look()
        else:
            self._loaded = _unpickled(path)
            self.shapes = {name: tuple(t.shape) for name, t in self._loaded.items()}

    def read(self, name: str) -> Tensor:
        """Return one tensor."""
        if self._loaded is not None:
            return self._loaded[name]
        with safe_open(self.path, "pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor

    def read_row(self, name: str, row: int) -> Tensor:
        """Return one row of a tensor's first dimension; nothing else of it is read."""
        if self._loaded is not None:
            return self._loaded[name][row]
        with safe_open(self.path, "pt") as file:
            tensor: Tensor = file.get_slice(name)[row]
            return tensor

    def _look(self) -> dict[str, Shape]:
        try:
            with safe_open(self.path, "pt") as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise _broken(self.path, error) from error


def write_shards(
    folder: Path, tensors: Iterator[tuple[str, Tensor]], stem: str = "model"
) -> dict[str, int]:
    """Write tensors as they come into shards with an index; return how many and how large.

    The layout is that of transformers: `model.safetensors`, or `model-00001-of-00002.safetensors`
    and so on beside `model.safetensors.index.json`.
    """
    shards: list[list[str]] = []
    held: dict[str, Tensor] = {}
    size = total = 0

    def put() -> None:
        save_file(held, folder / f".{len(shards)}", metadata={"format": "pt"})
        shards.append(list(held))
        held.clear()

    for name, tensor in tensors:
        own = tensor.numel() * tensor.element_size()
        if held and size + own > MOST_BYTES:
            put()
            size = 0
        held[name] = tensor.contiguous()
        size, total = size + own, total + own
    put()
    if len(shards) == 1:
        (folder / ".0").rename(folder / f"{stem}.safetensors")
        return {"files": 1, "size_bytes": total}
    places: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"{stem}-{i + 1:05}-of-{len(shards):05}.safetensors"
        (folder / f".{i}").rename(folder / file)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    write_json(folder / f"{stem}.safetensors.index.json", index)
    return {"files": len(shards), "size_bytes": total}


def shards_of(folder: Path) -> list[Path]:
    """Return the files that hold a folder's model, by its index where there is one.

    Raises:
        DataError: the index names files that are not there, or is broken.
    """
    for stem in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{stem}.index.json"
        if index.is_file():
            return _indexed(folder, index)
        if (folder / stem).is_file():
            return [folder / stem]
    return []


def _indexed(folder: Path, index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise _broken(index, error) from error
    outside = [name for name in names if Path(name).name != name]
    missing = [name for name in names if name not in outside and not (folder / name).is_file()]
    if outside or missing:
        raise DataError(
            f"{index} names shards that are not in {folder}: {', '.join(outside + missing)}.",
            cause="the checkpoint was not fetched whole.",
            remedy="fetch the missing files into the folder.",
        )
    return [folder / name for name in names]


def _unpickled(path: Path) -> Mapping[str, Tensor]:
    """Read torch's format: weights alone, so that no code of the file runs."""
    try:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the format before 2020 cannot be mapped
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} is no file of plain weights.",
            cause=f"it asks for code to be run when it is read: {_first_line(error)}",
            remedy="do not use it unless you know who made it; ask them for safetensors.",
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise _broken(path, error) from error
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise DataError(
            f"{path} is no table of tensors by name.",
            cause="it holds something else than a state dict.",
            remedy="give the file that the published training wrote.",
        )
    return found


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read: {_first_line(error)}",
        cause="it is cut short, or is not what its name says.",
        remedy="fetch it again.",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
