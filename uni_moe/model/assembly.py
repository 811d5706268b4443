"""The surgery that puts trained experts into the slots of a mixture, with a receipt.

`plan_assembly` decides, `assemble` acts. Both are pure: states in, state out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from uni_moe.errors import LineageError, bullets
from uni_moe.model.merging import digest
from uni_moe.model.slots import (
    BASE,
    NEW,
    PARTS,
    ROUTER,
    ROUTER_STD,
    SELF,
    drawn,
    entry_of,
    mlp_of,
)

RECEIPT = "receipt.json"  # beside the weights of every model that surgery made
DISSOLVE = "dissolve"  # what undoes an assembly
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Origin:
    """Where one slice of a packed tensor comes from: `slot` of `target` is `source` of `donor`.

    `donor` is "base", the name of an expert, or "new" for a router's row; `part` says which rows of
    a packed gate_up it fills.
    """

    target: str
    slot: int
    donor: str
    source: str
    part: str
    sha256: str


@dataclass(frozen=True)
class AssemblyPlan:
    """Every slice of every expert tensor with its origin, and every router row with its own.

    `router_seed` starts the routers.
    """

    sparse_layers: tuple[int, ...]
    slots: tuple[str, ...]
    origins: tuple[Origin, ...]
    rows: tuple[Origin, ...]
    router_seed: int

    def receipt(self) -> dict[str, Any]:
        """Return the plan as JSON: the origin of every expert tensor and router row.

        It is undone where a slot holds the base's own feed-forwards.
        """
        slot = self.slots.index(BASE) if BASE in self.slots else None
        return {
            "operation": {"name": "upcycle"},
            "inverse": None if slot is None else {"name": DISSOLVE, "slot": slot},
            "earlier": None,
            "sparse_layers": list(self.sparse_layers),
            "slots": list(self.slots),
            "router": {"start": "normal", "std": ROUTER_STD, "seed": self.router_seed},
            "origins": [asdict(origin) for origin in (*self.origins, *self.rows)],
        }


def tuned(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """Return the receipt of a mixture after training: the same slots, other tensors."""
    return {
        "operation": {"name": "tune"},
        "inverse": None,
        "earlier": dict(receipt),
        "slots": list(receipt["slots"]),
        "origins": [],
    }


def plan_assembly(
    base: State,
    experts: Mapping[str, State],
    *,
    sparse_layers: Sequence[int],
    slots: Sequence[str],
    router_seed: int,
) -> AssemblyPlan:
    """Say where every expert tensor of the mixture comes from.

    Args:
        base: state of the dense network.
        experts: name -> its feed-forward weights, under the dense network's names.
        sparse_layers: layers that become mixtures.
        slots: the donor of every slot: "base" or a name in `experts`.
        router_seed: seed of the routers' start.

    Raises:
        LineageError: a donor or a tensor is missing, or shapes differ; all of them at once.
    """
    donors: dict[str, State] = {BASE: base, **experts}
    problems = [f"no expert {slot!r}" for slot in slots if slot not in donors]
    origins = []
    for layer in sparse_layers:
        for slot, donor in enumerate(slots):
            for part in PARTS:
                source = f"{mlp_of(layer)}{part}_proj.weight"
                tensor = donors.get(donor, {}).get(source)
                if tensor is None:
                    problems.append(f"{donor} has no {source}")
                elif source not in base:
                    problems.append(f"{BASE} has no {source}")
                elif tensor.shape != base[source].shape:
                    problems.append(f"{donor}: {source} is {tuple(tensor.shape)}")
                else:
                    packed = "down_proj" if part == "down" else "gate_up_proj"
                    target = f"{mlp_of(layer)}experts.{packed}"
                    origins.append(Origin(target, slot, donor, source, part, digest([tensor])))
    if problems:
        raise LineageError(
            f"The experts cannot be assembled:{bullets(problems)}",
            cause="an expert was trained for other layers or another language model.",
            remedy="run `dvc repro assemble`, which trains what does not fit again.",
        )
    rows = [
        Origin(name, slot, NEW, drawn(router_seed), "row", digest([row]))
        for name, rows in _routers(base, sparse_layers, len(slots), router_seed).items()
        for slot, row in enumerate(rows)
    ]
    return AssemblyPlan(
        tuple(sparse_layers), tuple(slots), tuple(origins), tuple(rows), router_seed
    )


def assemble(plan: AssemblyPlan, base: State, experts: Mapping[str, State]) -> dict[str, Tensor]:
    """Return the state of the sparse network: the base, its chosen feed-forwards replaced."""
    donors: dict[str, State] = {BASE: base, **experts}
    dense = {f"{mlp_of(i)}{p}_proj.weight" for i in plan.sparse_layers for p in PARTS}
    state = {name: tensor for name, tensor in base.items() if name not in dense}
    stacks: dict[str, dict[int, dict[str, Tensor]]] = {}
    for origin in plan.origins:
        slots = stacks.setdefault(origin.target, {})
        slots.setdefault(origin.slot, {})[origin.part] = donors[origin.donor][origin.source]
    for target, slots in stacks.items():
        rows = [
            torch.cat([parts[part] for part in PARTS if part in parts])
            for _, parts in sorted(slots.items())
        ]
        state[target] = torch.stack(rows)
    return state | _routers(base, plan.sparse_layers, len(plan.slots), plan.router_seed)


def _routers(base: State, layers: Sequence[int], slots: int, seed: int) -> dict[str, Tensor]:
    """Return what the routers start as: name -> a row for every slot, drawn layer by layer."""
    generator = torch.Generator().manual_seed(seed)
    widths = {layer: base[f"{mlp_of(layer)}gate_proj.weight"].shape[1] for layer in layers}
    return {
        mlp_of(layer) + ROUTER: torch.randn(slots, width, generator=generator) * ROUTER_STD
        for layer, width in widths.items()
    }


def dissolve(
    mixture: State, sparse_layers: Sequence[int], slot: int
) -> tuple[dict[str, Tensor], list[Mapping[str, Any]]]:
    """Return the dense network whose feed-forwards are one slot of every mixture; undoes assembly.

    Routers, the other slots and adapters in front of routers are left out. The second value is the
    origin of every feed-forward.
    """
    lost = tuple(mlp_of(layer) for layer in sparse_layers)
    state = {name: tensor for name, tensor in mixture.items() if not name.startswith(lost)}
    origins = []
    for start in lost:
        packed, down = f"{start}experts.gate_up_proj", f"{start}experts.down_proj"
        tensors = (*mixture[packed][slot].chunk(2), mixture[down][slot])
        for part, stack, tensor in zip(PARTS, (packed, packed, down), tensors, strict=True):
            target = f"{start}{part}_proj.weight"
            state[target] = tensor.clone()
            origins.append(entry_of(target, None, SELF, f"{stack}[{slot}]", tensor))
    return state, origins
