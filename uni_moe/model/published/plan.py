"""From published tensors to ours and back: one pure plan, one act, both ways.

Shapes
    E  experts    I  inner width    D  model width
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from uni_moe.errors import LineageError, bullets
from uni_moe.model.published.names import Hearing, Place, Style, ignored, place, published_names

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ImportPlan:
    """What becomes of every published tensor, and what of ours nothing fills.

    `used` maps a published name to its place, `ignored` one to the reason. `unknown` names have no
    place, `missing` are tensors of ours without a source, `misfits` say which shapes differ.
    """

    used: Mapping[str, Place]
    ignored: Mapping[str, str]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    misfits: tuple[str, ...]

    def check(self) -> None:
        """Refuse a plan with a gap.

        Raises:
            LineageError: a tensor is missing, unknown, or of another shape; all of them at once.
        """
        problems = [f"missing: {name}" for name in self.missing]
        problems += [f"unknown: {name}" for name in self.unknown]
        problems += list(self.misfits)
        if problems:
            raise LineageError(
                f"The published weights do not make a whole model:{bullets(problems)}",
                cause="a file of the checkpoint is missing or belongs to another one, or its "
                "config.json tells of other sizes.",
                remedy="fetch the missing file, or give the folder that holds it.",
            )

    def places(self) -> dict[str, str]:
        """Return where every used tensor goes, for a person."""
        return {name: _where(to) for name, to in sorted(self.used.items())}

    def lines(self, stored: Mapping[str, str]) -> list[str]:
        """Return every key with what becomes of it, for a person.

        Args:
            stored: published name -> the file it stands in and its name there.
        """
        return [
            *(f"used     {stored[name]} -> {where}" for name, where in self.places().items()),
            *(f"ignored  {stored[name]}: {why}" for name, why in sorted(self.ignored.items())),
            *(f"unknown  {stored[name]}" for name in self.unknown),
            *(f"missing  {name}" for name in self.missing),
            *(f"misfit   {line}" for line in self.misfits),
        ]


def plan_import(
    found: Mapping[str, Shape], wanted: Mapping[str, Shape], hearing: Hearing | None
) -> ImportPlan:
    """Say what becomes of every published tensor.

    Args:
        found: published name -> shape.
        wanted: our name -> shape, of the network that the published configuration describes.
        hearing: which aligner the checkpoint has.
    """
    used: dict[str, Place] = {}
    places: dict[Place, str] = {}
    left: dict[str, str] = {}
    unknown, misfits = [], []
    for name, shape in sorted(found.items()):
        why, to = ignored(name), place(name, hearing)
        if why is not None:
            left[name] = why
        elif to is None or to.target not in wanted:
            unknown.append(name)
        elif shape != (room := _room(wanted[to.target], to)):
            misfits.append(f"{name} is {shape}, its place {_where(to)} takes {room}")
        elif to in places:
            misfits.append(f"{name} and {places[to]} have one place: {_where(to)}")
        else:
            used[name] = to
            places[to] = name
    return ImportPlan(
        used,
        left,
        tuple(unknown),
        tuple(_missing(set(used.values()), wanted)),
        tuple(misfits),
    )


def bring_in(plan: ImportPlan, read: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Return our tensors one by one, so that a large model never lies in memory whole.

    Args:
        plan: a plan without a gap.
        read: gives a published tensor by name.

    Raises:
        LineageError: the plan has a gap; nothing has been read then.
    """
    plan.check()
    pieces: dict[str, dict[Place, str]] = {}
    for name, to in plan.used.items():
        pieces.setdefault(to.target, {})[to] = name
    for target, names in sorted(pieces.items()):
        yield target, _pack({to: read(name) for to, name in names.items()})


def take_out(
    ours: Mapping[str, Tensor], hearing: Hearing | None, style: Style, experts: int
) -> dict[str, Tensor]:
    """Return the published state of ours.

    Raises:
        LineageError: the published layout has no name for some of our tensors.
    """
    found: dict[str, Tensor] = {}
    nameless = []
    for name, tensor in ours.items():
        names = published_names(name, hearing, style, experts)
        nameless += [] if names else [name]
        found |= {published: _piece(tensor, to) for published, to in names}
    if nameless:
        raise LineageError(
            f"The published layout has no place for these tensors:{bullets(nameless)}",
            cause="the model has parts that no published variant has: a frame-time embedding, or "
            "speech and environmental audio in one model.",
            remedy="keep such a model in our own layout; it loads by from_pretrained.",
        )
    return found


def _pack(pieces: Mapping[Place, Tensor]) -> Tensor:
    """Put the pieces of one tensor together: slots in order, gate above up."""
    if all(to.slot is None for to in pieces):
        ((to, whole),) = pieces.items()
        return whole.squeeze(-1) if to.part == "convolution" else whole
    order = {"gate": 0, "up": 1, "down": 0}
    slots: dict[int, list[tuple[int, Tensor]]] = {}
    for to, tensor in pieces.items():
        assert to.slot is not None
        assert to.part is not None
        slots.setdefault(to.slot, []).append((order[to.part], tensor))
    return torch.stack(
        [
            torch.cat([t for _, t in sorted(slots[slot], key=lambda pair: pair[0])])
            for slot in sorted(slots)
        ]
    )


def _piece(tensor: Tensor, to: Place) -> Tensor:
    if to.slot is None:
        return tensor[..., None] if to.part == "convolution" else tensor
    return part_of(tensor[to.slot], to)


def part_of(one: Tensor, to: Place) -> Tensor:
    """Return a part of one expert: its gate and up lie packed, (2 I, D), its down alone, (D, I)."""
    if to.part == "down":
        return one.clone()
    gate, up = one.chunk(2)
    return (gate if to.part == "gate" else up).clone()


def _room(shape: Shape, to: Place) -> Shape:
    """Return the shape of the piece that a place takes."""
    if to.slot is None:
        return (*shape, 1) if to.part == "convolution" else shape
    experts, rows, width = shape
    if to.slot >= experts:
        return ()
    return (rows, width) if to.part == "down" else (rows // 2, width)


def _missing(used: set[Place], wanted: Mapping[str, Shape]) -> list[str]:
    filled = {to.target for to in used if to.slot is None}
    missing = []
    for target, shape in sorted(wanted.items()):
        if target in filled:
            continue
        if ".mlp.experts." not in target:
            missing.append(target)
            continue
        parts = ("down",) if target.endswith("down_proj") else ("gate", "up")
        missing += [
            _where(Place(target, slot, part))
            for slot in range(shape[0])
            for part in parts
            if Place(target, slot, part) not in used
        ]
    return missing


def _where(to: Place) -> str:
    return to.target if to.slot is None else f"{to.target}[{to.slot}] {to.part}"
