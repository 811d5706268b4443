"""Operations that give a model another form: a mixture, a dense network, merged adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uni_moe.checkpoints.folders import read_adapter, read_donor, read_model, write_model
from uni_moe.checkpoints.receipts import MERGE, read_receipt
from uni_moe.checkpoints.tables import read_table
from uni_moe.checkpoints.whole import check_absent
from uni_moe.errors import ConfigError
from uni_moe.model import merging
from uni_moe.model.assembly import DISSOLVE, assemble, plan_assembly
from uni_moe.model.assembly import dissolve as dissolve_state
from uni_moe.model.config import UniMoeConfig, sparse_layers_of
from uni_moe.model.slots import BASE


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
            "experts_per_token": (
                min(config.experts_per_token, len(slots)) if top_k is None else top_k
            ),
            "modality_adapters": False,  # they are no part of a dense model
        }
    )
    receipt = plan.receipt() | {"earlier": read_receipt(model)}
    if receipt["inverse"] is not None:
        receipt["inverse"] |= {"config": before}
    donors = tuple(Path(slot) for slot in experts)
    return write_model(model, out, after, assemble(plan, state, experts), receipt, donors)


def merge_adapter(model: Path, adapter: Path, out: Path) -> Mapping[str, Any]:
    """Write the model with an adapter folded into its weights, and return the receipt.

    Raises:
        ConfigError: `out` exists, or a folder holds no model or no adapter.
        LineageError: the adapter was trained on another base, or a delta is lost in rounding.
    """
    check_absent(out)
    config, state = read_model(model)
    told, halves = read_adapter(adapter)
    note = adapter / merging.BASE_NOTE
    plan = merging.plan_merge(
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        {name: tuple(tensor.shape) for name, tensor in halves.items()},
        rank=told["r"],
        alpha=told["lora_alpha"],
    )
    unknown = merging.check_base(read_table(note) if note.is_file() else None, plan, state)
    after, origins = merging.merge(plan, state, halves, str(adapter.name))
    earlier = read_receipt(model)
    receipt = {
        "operation": {"name": MERGE, "adapters": len(plan.folds), "rank": plan.rank},
        **({} if unknown is None else {"notes": [f"the adapter {adapter.name}: {unknown}"]}),
        "inverse": None,  # what rounding took does not come back
        "slots": list((earlier or {}).get("slots", [])),
        "origins": origins,
        "earlier": earlier,
    }
    return write_model(model, out, config, after, receipt, (adapter,))


def dissolve(model: Path, told: Mapping[str, Any], out: Path) -> Mapping[str, Any]:
    """Write the dense model that an upcycled one was made from, as its receipt tells.

    Raises:
        ConfigError: `out` exists, or there is no model.
    """
    check_absent(out)
    config, state = read_model(model)
    after, origins = dissolve_state(state, config.sparse_layers, told["slot"])
    config.sparse_layers, config.modality_adapters = [], False
    config.expert_targets, config.target_coefficient = {}, 0.0
    for name, value in told.get("config", {}).items():
        setattr(config, name, value)
    done: dict[str, Any] = {
        "operation": {"name": DISSOLVE, "slot": told["slot"]},
        "inverse": None,
        "slots": [],
        "origins": origins,
        "earlier": read_receipt(model),
    }
    return write_model(model, out, config, after, done)
