"""What differs between two networks, layer by layer and expert by expert."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor

from uni_moe.model.slots import PARTS, ROUTER, mlp_of

State = Mapping[str, Tensor]
Kind = Literal["identical", "permuted", "low rank", "replaced", "changed", "only in A", "only in B"]
MOST_RANK = 64  # a difference of a higher rank is no adapter's
_SLACK = 1e-3  # share of the difference's norm that rounding may leave outside its rank
_SAMPLE = 4096  # numbers of a matrix that tell experts apart


@dataclass(frozen=True)
class Finding:
    """How one expert (or one tensor, with `slot` None) of B relates to A.

    `norm` is the Frobenius norm of the difference, `share` the same over A's norm (both None where
    shapes differ or A is zero); `source` the slot of A that an expert was in, where it is another;
    `rank` the largest rank of the difference where it is low; `origin` the donor or adapter that a
    receipt names. The feed-forward of a dense layer counts as its only expert.
    """

    layer: int | None
    slot: int | None
    name: str
    kind: Kind
    norm: float | None = 0.0
    share: float | None = 0.0
    rank: int | None = None
    source: int | None = None
    origin: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return asdict(self)

    def text(self) -> str:
        """Return the finding for a person."""
        place = self.name if self.slot is None else f"layer {self.layer:3} expert {self.slot:3}"
        if self.kind == "permuted":
            which = (
                "its rows follow the experts"
                if self.source is None
                else f"expert {self.source} of A"
            )
            return f"{place}  permuted: {which}"
        size = "of another shape" if self.norm is None else f"norm {self.norm:.4g}"
        size += "" if self.share is None else f" ({self.share:.2%})"
        by = "" if self.origin is None else f" by {self.origin}"
        rank = "" if self.rank is None else f"rank {self.rank}, "
        on = "" if self.source is None else f", against expert {self.source} of A"
        said = {
            "low rank": f"LoRA delta{by}{on}: {rank}{size}",
            "replaced": f"replaced{by}{on}: {size}",
            "changed": f"changed{on}: {size}",
            "only in B": f"only in B{'' if self.origin is None else f': from {self.origin}'}",
        }
        return f"{place}  {said.get(self.kind, self.kind)}"


def lines(found: Sequence[Finding]) -> Iterator[str]:
    """Return every finding for a person; a layer all of whose experts are identical is one line."""
    for (layer, is_expert), group in groupby(
        found, key=lambda one: (one.layer, one.slot is not None)
    ):
        own = list(group)
        if is_expert and len(own) > 1 and all(one.kind == "identical" for one in own):
            yield f"layer {layer:3} all {len(own)} experts  identical"
        else:
            yield from (one.text() for one in own)


def summary(found: Sequence[Finding]) -> str:
    """Return how many experts and other tensors differ, for a person."""
    kinds = Counter(one.kind for one in found if one.slot is not None)
    experts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"
    others = sum(one.slot is None for one in found)
    return f"experts: {experts}; other tensors that differ: {others}"


def compare(a: State, b: State, layers_a: Sequence[int], layers_b: Sequence[int]) -> list[Finding]:
    """Return a finding for every expert of both, then for every other tensor that is not identical.

    Args:
        a: state of the first network.
        b: state of the second.
        layers_a: its sparse layers.
        layers_b: those of the second.
    """
    found: list[Finding] = []
    for layer in sorted({*layers_a, *layers_b}):
        found += _experts(a, b, layer)
    mixed = tuple(mlp_of(layer) for layer in {*layers_a, *layers_b})
    rest = sorted(
        name
        for name in {*a, *b}
        if ".mlp.experts." not in name
        and not (name.startswith(mixed) and name.endswith("_proj.weight"))
    )
    for name in rest:
        if name not in a or name not in b:
            found.append(Finding(None, None, name, "only in B" if name in b else "only in A"))
        elif not _same(a[name], b[name]):
            turned = name.endswith(ROUTER) and _same_rows(a[name], b[name])
            found.append(
                Finding(None, None, name, "permuted")
                if turned
                else _measured(None, None, name, [a[name]], [b[name]])
            )
    return found


def _experts(a: State, b: State, layer: int) -> list[Finding]:
    ours, theirs = _slots(a, layer), _slots(b, layer)
    found = []
    for slot, expert in enumerate(theirs):
        if slot < len(ours) and all(map(_same, ours[slot], expert)):
            found.append(Finding(layer, slot, "expert", "identical"))
            continue
        source = next((i for i, own in enumerate(ours) if all(map(_same, own, expert))), None)
        if source is not None:
            found.append(Finding(layer, slot, "expert", "permuted", source=source))
        elif slot < len(ours):
            near = _nearest(slot, ours, expert)
            one = _measured(layer, slot, "expert", ours[near], expert)
            found.append(replace(one, source=None if near == slot else near))
        else:
            found.append(Finding(layer, slot, "expert", "only in B"))
    lost = range(len(theirs), len(ours))
    return [*found, *(Finding(layer, slot, "expert", "only in A") for slot in lost)]


def _nearest(slot: int, ours: Sequence[Sequence[Tensor]], expert: Sequence[Tensor]) -> int:
    """Return the slot of A that an expert was in before it changed: its own, or one far nearer."""
    own = [_sample(one) for one in ours]
    there = _sample(expert)
    if any(one.shape != there.shape for one in own):
        return slot
    far = [float((one - there).norm()) for one in own]
    near = min(range(len(far)), key=far.__getitem__)
    return near if far[near] < far[slot] / 2 else slot


def _sample(expert: Sequence[Tensor]) -> Tensor:
    """Return some thousand numbers of an expert; an odd step, so that all columns take part."""
    steps = [part.numel() // _SAMPLE | 1 for part in expert]
    return torch.cat([p.flatten()[::step].float() for p, step in zip(expert, steps, strict=True)])


def _slots(state: State, layer: int) -> list[tuple[Tensor, ...]]:
    """Return each expert's gate, up and down; those of a dense layer are its only expert's."""
    prefix = mlp_of(layer) + "experts."
    if prefix + "down_proj" not in state:
        names = [f"{mlp_of(layer)}{part}_proj.weight" for part in PARTS]
        return [tuple(state[name] for name in names)] if all(n in state for n in names) else []
    return [
        (*stack.chunk(2), down)
        for stack, down in zip(
            state[prefix + "gate_up_proj"], state[prefix + "down_proj"], strict=True
        )
    ]


def _measured(
    layer: int | None, slot: int | None, name: str, a: Sequence[Tensor], b: Sequence[Tensor]
) -> Finding:
    if any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return Finding(layer, slot, name, "changed", None, None)
    deltas = [y.float() - x.float() for x, y in zip(a, b, strict=True)]
    norm = sum(float(d.square().sum()) for d in deltas) ** 0.5
    whole = sum(float(x.float().square().sum()) for x in a) ** 0.5
    adaptable = slot is not None or name.endswith("_proj.weight")
    ranks = [_rank(delta) if adaptable else None for delta in deltas]
    known = [rank for rank in ranks if rank is not None]
    low = len(known) == len(ranks)
    return Finding(
        layer,
        slot,
        name,
        "low rank" if low else "changed",
        norm,
        norm / whole if whole else None,
        max(known) if low else None,
    )


def _rank(delta: Tensor) -> int | None:
    """Return a matrix's rank where it is low enough for an adapter, else None."""
    if delta.dim() != 2 or not delta.any():
        return 0 if delta.dim() == 2 else None
    most = min(MOST_RANK, min(delta.shape) // 2)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(delta.shape[1], most + 8, generator=generator)
    basis, _ = torch.linalg.qr(delta @ probe)
    inside = basis.T @ delta
    values = torch.linalg.svdvals(inside)
    outside = (delta.square().sum() - values.square().sum()).clamp(min=0).sqrt()
    total = delta.square().sum().sqrt()
    rank = int((values > _SLACK * values[0]).sum())
    return rank if rank <= most and outside <= _SLACK * total else None


def _same_rows(x: Tensor, y: Tensor) -> bool:
    """Say whether two matrices hold the same rows in another order."""
    return sorted(x.tolist()) == sorted(y.tolist())


def _same(x: Tensor, y: Tensor) -> bool:
    return x.shape == y.shape and torch.equal(x, y)
