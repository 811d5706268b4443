"""Operations on the experts of a mixture: a plan of where every slot comes from, and one act.

A plan is a list of slots. Permuting, cloning, adding, replacing and removing experts are all such
lists, so there is one act, one receipt, and one rule for the inverse: it exists where no slot of
the patient was lost. A dense network gets its first mixture by `uni_moe.model.assembly`.

Shapes
    E  experts    D  model width
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uni_moe.errors import LineageError, bullets
from uni_moe.model.slots import NEW, ROUTER, ROUTER_STD, SELF, drawn, entry_of, mlp_of

State = Mapping[str, Tensor]
_PACKED = ("experts.gate_up_proj", "experts.down_proj")


@dataclass(frozen=True)
class SlotOrigin:
    """Where a slot's expert and its router row come from.

    `donor` is "self" (the patient's slot `slot`) or a donor's name with its slot. `router` is
    "self", or "new": drawn from the plan's seed.
    """

    donor: str
    slot: int
    router: str


@dataclass(frozen=True)
class Surgery:
    """What every sparse layer's slots will be; `before` counts the patient's slots."""

    name: str
    before: int
    slots: tuple[SlotOrigin, ...]
    seed: int = 0

    def text(self) -> str:
        """Return the plan for a person."""
        lines = [f"{self.name}: {self.before} experts become {len(self.slots)}"]
        for place, origin in enumerate(self.slots):
            whose = "own slot" if origin.donor == SELF else f"{origin.donor}, slot"
            row = f", router row drawn from seed {self.seed}" if origin.router == NEW else ""
            lines.append(f"  slot {place}: {whose} {origin.slot}{row}")
        lost = "" if self.inverse() else "  it cannot be undone: an expert is lost"
        return "\n".join([*lines, lost]).rstrip()

    def wished(self, targets: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """Return the slots wished for each modality, as they count afterwards.

        An expert takes the wish for it along; a slot that is filled anew keeps its own.
        """
        found = {
            kind: [
                place
                for place, origin in enumerate(self.slots)
                if origin.router == SELF
                and (origin.slot if origin.donor == SELF else place) in slots
            ]
            for kind, slots in targets.items()
        }
        return {kind: slots for kind, slots in found.items() if slots}

    def inverse(self) -> Surgery | None:
        """Return the operation that undoes this one; None where a slot was lost."""
        home = {
            origin.slot: place
            for place, origin in reversed(list(enumerate(self.slots)))
            if origin.donor == SELF and origin.router == SELF
        }
        if set(home) != set(range(self.before)):
            return None
        slots = tuple(SlotOrigin(SELF, home[slot], SELF) for slot in range(self.before))
        return Surgery(f"inverse of {self.name}", len(self.slots), slots)


def _own(count: int) -> list[SlotOrigin]:
    return [SlotOrigin(SELF, slot, SELF) for slot in range(count)]


def permute(count: int, order: Sequence[int]) -> Surgery:
    """Put slot order[i] at place i. Outputs stay the same, as the router's rows go with experts.

    Raises:
        LineageError: `order` does not hold every slot once.
    """
    if sorted(order) != list(range(count)):
        raise LineageError(
            f"{list(order)} is no order of {count} experts.",
            cause="a permutation names every slot exactly once.",
            remedy=f"give the slots 0 to {count - 1} in their new order.",
        )
    own = _own(count)
    return Surgery("permute", count, tuple(own[slot] for slot in order))


def clone(count: int, slot: int) -> Surgery:
    """Add a copy of a slot, router row included, behind the others."""
    _check(count, slot)
    return Surgery("clone", count, (*_own(count), SlotOrigin(SELF, slot, SELF)))


def add(count: int, donor: str, slot: int = 0, *, seed: int) -> Surgery:
    """Add a donor's expert behind the others; its router row is drawn from the seed."""
    return Surgery("add", count, (*_own(count), SlotOrigin(donor, slot, NEW)), seed)


def replace_slot(count: int, slot: int, donor: str, donor_slot: int = 0) -> Surgery:
    """Put a donor's expert into a slot; the router row stays. What was there is lost."""
    _check(count, slot)
    own = _own(count)
    own[slot] = SlotOrigin(donor, donor_slot, SELF)
    return Surgery("replace", count, tuple(own))


def remove(count: int, slot: int, top_k: int) -> Surgery:
    """Take a slot out, with its router row.

    Raises:
        LineageError: fewer experts would be left than a token visits.
    """
    _check(count, slot)
    if count - 1 < top_k:
        raise LineageError(
            f"Slot {slot} cannot be removed: {count - 1} experts would be left.",
            cause=f"each token visits {top_k}.",
            remedy="add another expert first.",
        )
    own = _own(count)
    del own[slot]
    return Surgery("remove", count, tuple(own))


def _check(count: int, slot: int) -> None:
    if not 0 <= slot < count:
        raise LineageError(
            f"There is no slot {slot}.",
            cause=f"the model has slots 0 to {count - 1}.",
            remedy="name one of them.",
        )


def operate(
    plan: Surgery, patient: State, donors: Mapping[str, State], layers: Sequence[int]
) -> tuple[dict[str, Tensor], list[Mapping[str, Any]]]:
    """Return the patient's state after the operation, and the origin of every expert tensor.

    Args:
        plan: the operation.
        patient: state of a sparse network.
        donors: name -> state of another sparse network, or the feed-forwards of a trained expert
            under a dense network's names (slot 0 alone).
        layers: the sparse layers.

    Raises:
        LineageError: a tensor is missing or has another shape; all of them at once.
    """
    problems: list[str] = []
    receipt: list[Mapping[str, Any]] = []
    state = dict(patient)
    for layer in layers:
        for packed in _PACKED:
            target = mlp_of(layer) + packed
            pieces = []
            for place, origin in enumerate(plan.slots):
                source = patient if origin.donor == SELF else donors.get(origin.donor, {})
                piece = _expert(source, layer, packed, origin.slot)
                if piece is None or piece.shape != patient[target][0].shape:
                    found = "nothing" if piece is None else tuple(piece.shape)
                    problems.append(f"{origin.donor}[{origin.slot}] has {found} for {target}")
                    continue
                pieces.append(piece)
                where = f"{target}[{origin.slot}]"
                receipt.append(entry_of(target, place, origin.donor, where, piece))
            if len(pieces) == len(plan.slots):
                state[target] = torch.stack(pieces).to(patient[target].dtype)
        router = mlp_of(layer) + ROUTER
        rows = _rows(plan, patient[router], layer)
        receipt += [entry_of(router, place, *row) for place, row in enumerate(rows)]
        state[router] = torch.stack([row for _, _, row in rows])
    if problems:
        raise LineageError(
            f"The operation cannot be done:{bullets(problems)}",
            cause="a donor was trained for other layers or another language model.",
            remedy="take a donor of the same architecture and sparse layers.",
        )
    return state, receipt


def _rows(plan: Surgery, old: Tensor, layer: int) -> list[tuple[str, str, Tensor]]:
    """Return who gives every slot's router row, where it comes from, and the row."""
    generator = torch.Generator().manual_seed(plan.seed * 1009 + layer)
    rows = []
    for place, origin in enumerate(plan.slots):
        if origin.router == NEW:
            fresh = torch.randn(old.shape[1], generator=generator) * ROUTER_STD
            rows.append((NEW, drawn(plan.seed), fresh.to(old)))
        else:
            row = origin.slot if origin.donor == SELF else place
            rows.append((SELF, f"{mlp_of(layer)}{ROUTER}[{row}]", old[row]))
    return rows


def _expert(state: State, layer: int, packed: str, slot: int) -> Tensor | None:
    """Return one expert's tensor, from a packed stack or from a dense feed-forward."""
    prefix = mlp_of(layer)
    stack = state.get(prefix + packed)
    if stack is not None:
        return stack[slot] if slot < len(stack) else None
    names = ("gate", "up") if packed.endswith("gate_up_proj") else ("down",)
    parts = [state.get(f"{prefix}{name}_proj.weight") for name in names]
    if slot or any(part is None for part in parts):
        return None
    return torch.cat([part for part in parts if part is not None])
