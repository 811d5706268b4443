"""A saved adapter folded into the weights that it was trained on: a plan by shapes, and one act.

The layout is stock peft's. That of `target_parameters` holds a stack of experts: their A lie below
each other, expert by expert; their B beside each other, with the expert counting fastest.

Shapes
    E  experts    r  rank
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uni_moe.errors import LineageError, bullets

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")  # peft's; ours is the first
ADAPTER_CONFIG = "adapter_config.json"
BASE_NOTE = "base.json"  # beside an adapter of ours: which weights it was trained on
Shape = tuple[int, ...]
State = Mapping[str, Tensor]
_HALF = re.compile(
    r"base_model\.model\.(?P<module>.+?)(?P<inner>(\.base_layer)*)\.lora_(?P<side>[AB])\.weight"
)
_PACKED = ("gate_up_proj", "down_proj")


@dataclass(frozen=True)
class Fold:
    """One adapter: the names of its halves and of the weight that it changes."""

    target: str
    a: str
    b: str


@dataclass(frozen=True)
class MergePlan:
    """Every adapter with its weight; the delta of each is scaled by alpha / rank."""

    folds: tuple[Fold, ...]
    rank: int
    alpha: float


def plan_merge(
    base: Mapping[str, Shape], adapter: Mapping[str, Shape], *, rank: int, alpha: float
) -> MergePlan:
    """Say which weight every tensor of an adapter changes.

    Raises:
        LineageError: a tensor has no place, or is of another shape; all of them at once.
    """
    halves: dict[tuple[str, str], dict[str, str]] = {}
    problems = []
    for name in sorted(adapter):
        match = _HALF.fullmatch(name)
        if match is None:
            problems.append(f"{name} is no half of a low-rank adapter")
        else:
            halves.setdefault((match["module"], match["inner"]), {})[match["side"]] = name
    folds = []
    for (module, _), sides in sorted(halves.items()):
        if set(sides) != {"A", "B"}:
            problems.append(f"{next(iter(sides.values()))} stands without its other half")
            continue
        a, b = sides["A"], sides["B"]
        places = [p for p in _places(module) if p in base]
        fitting = [p for p in places if _fits(base[p], adapter[a], adapter[b], rank)]
        if len(fitting) == 1:
            folds.append(Fold(fitting[0], a, b))
        else:
            there = ", ".join(f"{p} {base[p]}" for p in places) or "nothing of that name"
            problems.append(f"{module}: B {adapter[b]} A {adapter[a]} of rank {rank} on {there}")
    targets = [fold.target for fold in folds]
    problems += [
        f"{t} has two adapters" for t in sorted({t for t in targets if targets.count(t) > 1})
    ]
    if problems or not folds:
        raise LineageError(
            f"The adapter does not fit the model:{bullets(problems or ['it holds nothing'])}",
            cause="it was trained on another base, or its files are incomplete.",
            remedy="give the base that it was trained on.",
        )
    return MergePlan(tuple(folds), rank, alpha)


def merge(
    plan: MergePlan, base: State, adapter: State, donor: str
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Return the state with every adapter folded in, and the origin of every changed tensor.

    Raises:
        LineageError: an adapter that has learned, or that of one expert, changes nothing: its delta
            is lost in rounding.
    """
    state, receipt, lost, trained = dict(base), [], list[str](), 0
    for fold in plan.folds:
        old = base[fold.target]
        delta = plan.alpha / plan.rank * product(old, adapter[fold.a], adapter[fold.b])
        state[fold.target] = (old.float() + delta).to(old.dtype)
        trained += int(nonzero(delta).sum())
        lost += swallowed(fold.target, old, delta, state[fold.target])
        receipt.append(
            {
                "target": fold.target,
                "donor": donor,
                "source": [fold.a, fold.b],
                "scale": plan.alpha / plan.rank,
                "sha256": [digest([adapter[half]]) for half in (fold.a, fold.b)],
                "norm": _norms(state[fold.target].float() - old.float()),
            }
        )
    check_arrived(trained, lost)
    return state, receipt


def swallowed(target: str, old: Tensor, delta: Tensor, new: Tensor) -> list[str]:
    """Name the matrices that a delta leaves as they are though it is not zero.

    Those of a stack of experts count one by one.
    """
    lost_E = nonzero(delta) & ~nonzero(new != old)
    found = []
    for slot in lost_E.nonzero().flatten().tolist():
        place, part = (f"{target}[{slot}]", delta[slot]) if delta.dim() == 3 else (target, delta)
        found.append(f"{place}: delta of norm {float(part.norm()):.3g} in {old.dtype}")
    return found


def nonzero(weight: Tensor) -> Tensor:
    """Say of a matrix, (1,), or of every expert of a stack, (E,), whether anything in it is."""
    return (weight if weight.dim() == 3 else weight[None]).flatten(1).any(1)


def check_arrived(trained: int, lost: Sequence[str]) -> None:
    """Refuse a merge in which fewer deltas arrive than were trained.

    Raises:
        LineageError: some are lost in rounding.
    """
    if lost:
        raise LineageError(
            f"{len(lost)} of {trained} trained adapters would change nothing:{bullets(lost)}",
            cause="their deltas are smaller than what the weights' precision can hold.",
            remedy="keep the adapter beside the model, or merge into a higher precision.",
        )


def check_base(told: Mapping[str, Any] | None, plan: MergePlan, state: State) -> str | None:
    """Hold weights against the note of what an adapter was trained on.

    Args:
        told: what base.json beside the adapter says, None where there is none.
        plan: of the adapter.
        state: the weights by name, at least those that it changes.

    Returns:
        Why nobody can know whether they are its base; None where they are.

    Raises:
        LineageError: they are others, though of the same shapes.
    """
    if told is None:
        return (
            f"nobody can know whether it was trained on these weights: there is no {BASE_NOTE} "
            "beside it, and that shapes fit is all that was checked"
        )
    targets = [state[name] for name in sorted(fold.target for fold in plan.folds)]
    here = precision(targets)
    if here != told["dtype"]:
        return (
            f"nobody can know whether it was trained on these weights: they are {here} here and "
            f"were {told['dtype']} then, so their bytes differ anyway"
        )
    if digest(targets) != told["sha256"]:
        raise LineageError(
            "The adapter was trained on another base.",
            cause="the weights that it changes are not those that it was trained on, though they "
            "have the same shapes.",
            remedy="give the base that it was trained on.",
        )
    return None


def _norms(change: Tensor) -> Any:  # noqa: ANN401 - a number, or one for each expert of a stack
    """Return how much a weight has changed, as its own precision holds it."""
    return change.square().sum((-2, -1)).sqrt().tolist()


def product(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return B A in float32, for a matrix or for every expert of a packed stack."""
    a, b = a.float(), b.float()
    if weight.dim() == 2:
        return b @ a
    experts = weight.shape[0]
    a_Eri = a.reshape(experts, -1, a.shape[1])
    b_orE = b.reshape(b.shape[0], -1, experts)
    return torch.einsum("ore,eri->eoi", b_orE, a_Eri)


def digest(tensors: Iterable[Tensor]) -> str:
    """Return the sha256 of tensors' bytes, one after the other."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def precision(tensors: Iterable[Tensor]) -> str:
    """Return the type of numbers that tensors hold; all of them where there are several."""
    return ", ".join(sorted({str(tensor.dtype) for tensor in tensors}))


def _places(module: str) -> tuple[str, ...]:
    """Return the weights that an adapter on a module may change."""
    if module.endswith(".mlp.experts"):
        return tuple(f"{module}.{packed}" for packed in _PACKED)
    return (f"{module}.weight",)


def _fits(weight: Shape, a: Shape, b: Shape, rank: int) -> bool:
    experts, (out, inner) = (weight[0] if len(weight) == 3 else 1), weight[-2:]
    return a == (experts * rank, inner) and b == (out, rank * experts)
