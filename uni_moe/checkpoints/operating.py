"""Operations on model folders: each plans on what it reads, and writes a folder with a receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from uni_moe.artifacts import read_json, whole_folder, write_json
from uni_moe.checkpoints.published_adapters import check_peft
from uni_moe.checkpoints.receipts import MERGE, read_receipt, slot_names
from uni_moe.checkpoints.tensors import TensorFile, write_shards
from uni_moe.checkpoints.whole import check_absent, read_config, whole_model
from uni_moe.errors import ConfigError, DataError, LineageError
from uni_moe.model import merging, surgery
from uni_moe.model.assembly import BASE, DISSOLVE, RECEIPT, assemble, dissolve, plan_assembly
from uni_moe.model.config import UniMoeConfig, sparse_layers_of
from uni_moe.model.surgery import SELF, SlotOrigin, Surgery, operate

_KEEP = (".json", ".model", ".txt", ".jinja")  # what stands beside the weights
_STALE = ("card.json", "config.json", RECEIPT)  # … and is true of the old ones alone
_OWN_NAMES = (SELF, BASE)  # what a donor may not be called: receipts say these of the patient


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
    names = ("adapter_model.safetensors", "adapter_model.bin")
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    config = folder / "adapter_config.json"
    if file is None or not config.is_file():
        raise ConfigError(
            f"{folder} holds no adapter.",
            cause=f"adapter_config.json or {names[0]} is missing.",
            remedy="give the folder that a training or peft's save_pretrained wrote.",
        )
    try:
        told = read_json(config)
    except ValueError as error:
        raise DataError(
            f"{config} is not JSON: {error}",
            cause="the file was not copied whole, or was changed by hand.",
            remedy="copy it again.",
        ) from error
    check_peft(told, file)
    return told, _tensors([TensorFile(file)])


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
    """Return the plan of one operation and its donors; a donor is written as PATH or PATH#SLOT.

    Raises:
        ConfigError: the model has no mixture, or a donor or slot is written wrongly.
        LineageError: the operation names a slot that is not there, or leaves too few.
    """
    config = read_config(model)
    count = config.num_experts
    if not config.sparse_layers:
        raise ConfigError(
            f"{model} has no mixture to operate on.",
            cause="it is a dense model.",
            remedy="a dense model gets a mixture by --upcycle.",
        )
    if permute is not None:
        return surgery.permute(count, permute), {}
    if clone is not None:
        return surgery.clone(count, clone), {}
    if remove is not None:
        return surgery.remove(count, remove, config.experts_per_token), {}
    if add is not None:
        name, path, slot = _donor(add)
        return surgery.add(count, name, slot, seed=seed), {name: path}
    assert replace is not None
    name, path, slot = _donor(replace[1])
    place = _slot(replace[0], f"a slot from 0 to {count - 1}")
    return surgery.replace_slot(count, place, name, slot), {name: path}


def operate_on(
    model: Path, plan: Surgery, donors: Mapping[str, Path], out: Path
) -> Mapping[str, Any]:
    """Write the model as it is after an operation, whole or not at all; return the receipt.

    Raises:
        ConfigError: `out` exists, or there is no model.
        LineageError: a donor does not fit, or no wished expert is left.
    """
    check_absent(out)
    config, state = read_model(model)
    wished = plan.wished(config.expert_targets)
    if config.target_coefficient and not wished:
        raise LineageError(
            "No expert that is wished for a modality would be left.",
            cause=f"the model learns from expert_targets {config.expert_targets}.",
            remedy="keep one of them, or set target_coefficient to 0 in the model's config.json.",
        )
    known = {name: read_donor(place) for name, place in donors.items()}
    after, origins = operate(plan, state, known, config.sparse_layers)
    inverse, earlier = plan.inverse(), read_receipt(model)
    config.num_experts, config.expert_targets = len(plan.slots), wished
    receipt = {
        "operation": asdict(plan),
        "inverse": None if inverse is None else asdict(inverse),
        "slots": slot_names(plan, earlier),
        "origins": origins,
        "earlier": earlier,
    }
    return _write(model, out, config, after, receipt)


def undo(model: Path, out: Path) -> Mapping[str, Any]:
    """Write the model as it was before the operation that its receipt tells of.

    Raises:
        ConfigError: there is no receipt, or the operation cannot be undone.
    """
    read_config(model)
    receipt = read_receipt(model)
    told = receipt.get("inverse") if receipt else None
    if told is None:
        raise ConfigError(
            f"The last operation on {model} cannot be undone.",
            cause="something was lost by it." if receipt else f"there is no {RECEIPT} in it.",
            remedy="go back to the model it was made from.",
        )
    if told["name"] == DISSOLVE:
        return _dissolve(model, told, receipt, out)
    slots = tuple(SlotOrigin(**slot) for slot in told["slots"])
    return operate_on(model, Surgery(told["name"], told["before"], slots, told["seed"]), {}, out)


def upcycle(  # noqa: PLR0913 - a mixture is these choices
    model: Path,
    slots: Sequence[str],
    layers: Sequence[int] | str,
    *,
    seed: int,
    top_k: int | None,
    out: Path,
) -> Mapping[str, Any]:
    """Write a dense model as a mixture; a slot is "base", or the file or folder of a donor.

    Raises:
        ConfigError: `out` exists, there is no model, or it has a mixture.
        LineageError: an expert does not fit.
    """
    check_absent(out)
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
    before = {name: getattr(config, name) for name in ("num_experts", "experts_per_token")}
    after = UniMoeConfig.from_dict(
        {
            **config.to_dict(),
            "sparse_layers": chosen,
            "num_experts": len(slots),
            "experts_per_token": top_k or min(config.experts_per_token, len(slots)),
            "modality_adapters": False,  # they are no part of a dense model
        }
    )
    receipt = plan.receipt() | {"earlier": read_receipt(model)}
    if receipt["inverse"] is not None:
        receipt["inverse"] |= {"config": before}
    return _write(model, out, after, assemble(plan, state, experts), receipt)


def merge_adapter(model: Path, adapter: Path, out: Path) -> Mapping[str, Any]:
    """Write the model with an adapter folded into its weights, and return the receipt.

    Raises:
        ConfigError: `out` exists, or a folder holds no model or no adapter.
        LineageError: the adapter was trained on another base, or a delta is lost in rounding.
    """
    check_absent(out)
    config, state = read_model(model)
    told, halves = read_adapter(adapter)
    plan = merging.plan_merge(
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        {name: tuple(tensor.shape) for name, tensor in halves.items()},
        rank=told["r"],
        alpha=told["lora_alpha"],
    )
    _check_base(adapter, plan, state)
    after, origins = merging.merge(plan, state, halves, str(adapter.name))
    earlier = read_receipt(model)
    receipt = {
        "operation": {"name": MERGE, "adapters": len(plan.folds), "rank": plan.rank},
        "inverse": None,  # what rounding took does not come back
        "slots": list((earlier or {}).get("slots", [])),
        "origins": origins,
        "earlier": earlier,
    }
    return _write(model, out, config, after, receipt)


def _check_base(adapter: Path, plan: merging.MergePlan, state: Mapping[str, Tensor]) -> None:
    """Refuse an adapter of ours that was trained on other weights of the same shapes."""
    note = adapter / merging.BASE_NOTE
    if not note.is_file():
        return  # stock peft does not say what it was trained on
    told = read_json(note)
    targets = [state[name] for name in sorted(fold.target for fold in plan.folds)]
    if merging.precision(targets) != told["dtype"]:
        return  # the same weights in another precision have other bytes
    if merging.digest(targets) != told["sha256"]:
        raise LineageError(
            f"The adapter in {adapter} was trained on another base.",
            cause="the weights that it changes are not those that it was trained on, though they "
            "have the same shapes.",
            remedy="give the base that it was trained on.",
        )


def _dissolve(
    model: Path, told: Mapping[str, Any], receipt: Mapping[str, Any] | None, out: Path
) -> Mapping[str, Any]:
    check_absent(out)
    config, state = read_model(model)
    after = dissolve(state, config.sparse_layers, told["slot"])
    config.sparse_layers, config.modality_adapters = [], False
    config.expert_targets, config.target_coefficient = {}, 0.0
    for name, value in told.get("config", {}).items():
        setattr(config, name, value)
    done: dict[str, Any] = {
        "operation": {"name": DISSOLVE, "slot": told["slot"]},
        "inverse": None,
        "slots": [],
        "origins": [],
        "earlier": receipt,
    }
    return _write(model, out, config, after, done)


def _donor(text: str) -> tuple[str, Path, int]:
    """Return a donor's name in receipts, its path, and its slot."""
    path, mark, slot = text.partition("#")
    name = Path(path).resolve().name
    name = f"./{name}" if name in _OWN_NAMES else name
    return name, Path(path), _slot(slot, "PATH#2 for slot 2") if mark else 0


def _slot(text: str, right: str) -> int:
    if not text.isdecimal():
        raise ConfigError(
            f"{text!r} is no slot.",
            cause="slots are counted from 0.",
            remedy=f"write {right}.",
        )
    return int(text)


def _write(
    model: Path,
    out: Path,
    config: UniMoeConfig,
    state: Mapping[str, Tensor],
    receipt: Mapping[str, Any],
) -> Mapping[str, Any]:
    with whole_folder(out) as draft:
        for file in sorted(model.iterdir()):
            is_index = file.name.endswith(".index.json")
            if file.suffix in _KEEP and file.name not in _STALE and not is_index:
                (draft / file.name).write_bytes(file.read_bytes())
        write_shards(draft, iter(sorted(state.items())))
        config.save_pretrained(draft)
        write_json(draft / RECEIPT, receipt)
    return receipt


def _tensors(files: Sequence[TensorFile]) -> dict[str, Tensor]:
    return {name: file.read(name) for file in files for name in file.shapes}
