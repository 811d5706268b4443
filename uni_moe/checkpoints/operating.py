"""Operations and comparisons on model folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from uni_moe.artifacts import read_json, whole_folder, write_json
from uni_moe.checkpoints.tensors import TensorFile, shards_of, write_shards
from uni_moe.errors import ConfigError
from uni_moe.model import surgery
from uni_moe.model.assembly import BASE, assemble, plan_assembly
from uni_moe.model.config import UniMoeConfig, sparse_layers_of
from uni_moe.model.difference import Finding, compare
from uni_moe.model.surgery import SELF, SlotOrigin, Surgery, operate

RECEIPT = "surgery.json"
_KEEP = (".json", ".model", ".txt", ".jinja")  # what stands beside the weights
_STALE = ("card.json", "config.json", RECEIPT)  # … and is true of the old ones alone


def read_config(folder: Path) -> UniMoeConfig:
    """Return a model's configuration.

    Raises:
        ConfigError: the folder holds no model of ours.
    """
    file = folder / "config.json"
    told = read_json(file) if file.is_file() else {}
    if told.get("model_type") != UniMoeConfig.model_type:
        raise ConfigError(
            f"{folder} holds no model of ours.",
            cause=f"config.json says {told.get('model_type')!r}."
            if told
            else "it has no config.json.",
            remedy="give a folder that a training, an import or save_pretrained wrote; a published "
            "one becomes ours by `uni-moe import-official`.",
        )
    return UniMoeConfig.from_pretrained(folder)


def read_model(folder: Path) -> tuple[UniMoeConfig, dict[str, Tensor]]:
    """Return a model's configuration and its tensors.

    Raises:
        ConfigError: the folder holds no model of ours.
    """
    paths = shards_of(folder)
    if not paths or not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} holds no model.",
            cause="config.json or the weights are missing.",
            remedy="give a folder that a training, an import or save_pretrained wrote.",
        )
    return UniMoeConfig.from_pretrained(folder), _tensors(paths)


def read_donor(place: Path) -> dict[str, Tensor]:
    """Return a donor's tensors: a model folder, or the file of a trained expert."""
    return _tensors([place]) if place.is_file() else read_model(place)[1]


def plan_operation(  # noqa: PLR0913 - one of the operations is chosen
    model: Path,
    *,
    permute: Sequence[int] | None = None,
    clone: int | None = None,
    add: str | None = None,
    replace: Sequence[str] | None = None,
    remove: int | None = None,
    seed: int = 0,
) -> tuple[Surgery, dict[str, Path]]:
    """Return the plan of one operation and its donors; a donor is written as PATH or PATH#SLOT."""
    config = UniMoeConfig.from_pretrained(model) if (model / "config.json").is_file() else None
    count = config.num_experts if config is not None and config.sparse_layers else 0
    if config is None or not count:
        raise ConfigError(
            f"{model} has no mixture to operate on.",
            cause="it is no model of ours, or a dense one.",
            remedy="a dense model gets a mixture by --upcycle.",
        )
    if permute is not None:
        return surgery.permute(count, permute), {}
    if clone is not None:
        return surgery.clone(count, clone), {}
    if remove is not None:
        return surgery.remove(count, remove, config.experts_per_token), {}
    if add is not None:
        path, slot = _donor(add)
        return surgery.add(count, path.name, slot, seed=seed), {path.name: path}
    assert replace is not None
    path, slot = _donor(replace[1])
    if not replace[0].isdecimal():
        raise ConfigError(
            f"{replace[0]!r} is no slot.",
            cause="--replace takes a slot and a donor.",
            remedy=f"name a slot from 0 to {count - 1}.",
        )
    return surgery.replace_slot(count, int(replace[0]), path.name, slot), {path.name: path}


def _donor(text: str) -> tuple[Path, int]:
    path, _, slot = text.partition("#")
    return Path(path), int(slot) if slot.isdecimal() else 0


def operate_on(model: Path, plan: Surgery, donors: Mapping[str, Path], out: Path) -> None:
    """Write the model as it is after an operation, with its receipt, whole or not at all.

    Raises:
        ConfigError: `out` exists, or there is no model.
        LineageError: a donor does not fit.
    """
    _check_absent(out)
    config, state = read_model(model)
    known = {name: read_donor(place) for name, place in donors.items()}
    after, origins = operate(plan, state, known, config.sparse_layers)
    inverse = plan.inverse()
    config.num_experts = len(plan.slots)
    receipt = {
        "operation": asdict(plan),
        "inverse": None if inverse is None else asdict(inverse),
        "origins": origins,
    }
    _write(model, out, config, after, receipt)


def undo(model: Path, out: Path) -> None:
    """Write the model as it was before the operation that its receipt tells of.

    Raises:
        ConfigError: there is no receipt, or the operation cannot be undone.
    """
    receipt = _receipt(model)
    told = receipt.get("inverse") if receipt else None
    if told is None:
        raise ConfigError(
            f"The last operation on {model} cannot be undone.",
            cause="an expert was lost by it." if receipt else f"there is no {RECEIPT} in it.",
            remedy="go back to the model it was made from.",
        )
    slots = tuple(SlotOrigin(**slot) for slot in told["slots"])
    operate_on(model, Surgery(told["name"], told["before"], slots, told["seed"]), {}, out)


def upcycle(
    model: Path, slots: Sequence[str], layers: Sequence[int] | str, seed: int, out: Path
) -> None:
    """Write a dense model as a mixture; a slot is "base" or the file of a trained expert.

    Raises:
        ConfigError: `out` exists, there is no model, or it has a mixture.
        LineageError: an expert does not fit.
    """
    _check_absent(out)
    config, state = read_model(model)
    if config.sparse_layers:
        raise ConfigError(
            f"{model} has a mixture already.",
            cause=f"its layers {config.sparse_layers} are sparse.",
            remedy="add or clone experts instead.",
        )
    chosen = sparse_layers_of(layers, config.text_config.num_hidden_layers)
    experts = {slot: read_donor(Path(slot)) for slot in sorted({*slots} - {BASE})}
    plan = plan_assembly(state, experts, sparse_layers=chosen, slots=slots, router_seed=seed)
    config.sparse_layers, config.num_experts = chosen, len(slots)
    config.experts_per_token = min(config.experts_per_token, len(slots))
    after = assemble(plan, state, experts)
    receipt = {"operation": {"name": "upcycle"}, "inverse": None, **plan.receipt()}
    _write(model, out, config, after, receipt)


def difference(a: Path, b: Path) -> list[Finding]:
    """Return what differs between two model folders; a receipt in B names its donors."""
    (config_a, state_a), (config_b, state_b) = read_model(a), read_model(b)
    origins = {
        (int(origin["target"].split(".layers.")[1].split(".")[0]), origin["place"]): origin
        for origin in (_receipt(b) or {}).get("origins", [])
        if origin.get("donor") not in (None, SELF) and "place" in origin
    }
    return [
        dataclasses.replace(one, kind="replaced", origin=f"{origin['donor']}[{origin['slot']}]")
        if (origin := origins.get((one.layer, one.slot))) is not None  # type: ignore[arg-type]
        and one.kind in ("changed", "low rank")
        else one
        for one in compare(state_a, state_b, config_a.sparse_layers, config_b.sparse_layers)
    ]


def _check_absent(out: Path) -> None:
    if out.exists():
        raise ConfigError(
            f"{out} exists.",
            cause="an operation never writes over something.",
            remedy="name another folder.",
        )


def _receipt(model: Path) -> dict[str, Any] | None:
    file = model / RECEIPT
    return read_json(file) if file.is_file() else None


def _write(
    model: Path,
    out: Path,
    config: UniMoeConfig,
    state: Mapping[str, Tensor],
    receipt: Mapping[str, Any],
) -> None:
    with whole_folder(out) as draft:
        for file in sorted(model.iterdir()):
            if file.suffix in _KEEP and file.name not in _STALE and not _is_index(file):
                (draft / file.name).write_bytes(file.read_bytes())
        write_shards(draft, iter(sorted(state.items())))
        config.save_pretrained(draft)
        write_json(draft / RECEIPT, receipt)


def _is_index(file: Path) -> bool:
    return file.name.endswith(".index.json")


def _tensors(paths: Sequence[Path]) -> dict[str, Tensor]:
    files = [TensorFile(path) for path in paths]
    return {name: file.read(name) for file in files for name in file.shapes}
