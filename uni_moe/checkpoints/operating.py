"""Operations on model folders: each plans on what it reads, and writes a folder with a receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from uni_moe.checkpoints.folders import read_donor, read_model, write_model
from uni_moe.checkpoints.receipts import read_receipt, slot_names
from uni_moe.checkpoints.reshaping import dissolve
from uni_moe.checkpoints.whole import check_absent, read_config
from uni_moe.errors import ConfigError, LineageError
from uni_moe.model import surgery
from uni_moe.model.assembly import DISSOLVE, RECEIPT
from uni_moe.model.slots import BASE, SELF
from uni_moe.model.surgery import SlotOrigin, Surgery, operate

_OWN_NAMES = (SELF, BASE)  # what a donor may not be called: receipts say these of the patient


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
    return write_model(model, out, config, after, receipt, tuple(donors.values()))


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
        return dissolve(model, told, out)
    slots = tuple(SlotOrigin(**slot) for slot in told["slots"])
    return operate_on(model, Surgery(told["name"], told["before"], slots, told["seed"]), {}, out)


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
