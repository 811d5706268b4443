"""Low-rank adapters of a published checkpoint: peft's, and those built into the 8-expert variant.

Source: peft 0.4's files and key names; the `*_lora_A`, `*_lora_B` layers of the 8-expert variant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from uni_moe.checkpoints.tensors import Shape, TensorFile
from uni_moe.errors import DataError, bullets
from uni_moe.model.merging import check_arrived, nonzero, swallowed

_LORA = re.compile(r"(?P<target>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")
_BUILT_IN = re.compile(r"(?P<target>.+_proj)_lora_(?P<side>[AB])\.weight")
_OTHER_KINDS = ("use_dora", "use_rslora", "fan_in_fan_out", "rank_pattern", "alpha_pattern")


def short(path: Path) -> str:
    """Return a file's name with its folder's, which tells two shards of one name apart."""
    return f"{path.parent.name}/{path.name}"


@dataclass(frozen=True)
class Source:
    """A tensor in a file; `known_as` is its published name without what training put around it."""

    file: TensorFile
    name: str
    known_as: str

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.file.shapes[self.name]

    def read(self) -> Tensor:
        """Return the tensor."""
        return self.file.read(self.name)

    def __str__(self) -> str:
        """Return where it stands, for a person."""
        return f"{short(self.file.path)}: {self.name}"


@dataclass
class Delta:
    """A low-rank adapter of one weight: W + scale * B A.

    `origin` is the file of peft's that both halves stand in, None for halves that are parameters of
    the network itself; `rank` is what their configuration says.
    """

    scale: float
    rank: int
    origin: Path | None
    a: Source | None = None
    b: Source | None = None

    def halves(self) -> tuple[Source, ...]:
        """Return the halves that are there."""
        return tuple(half for half in (self.a, self.b) if half is not None)


Deltas = dict[str, list[Delta]]  # the published name of a weight -> its adapters


def is_half(name: str) -> bool:
    """Say whether a published name is one half of an adapter that lives beside its weight."""
    return _BUILT_IN.fullmatch(name) is not None


def put_built_in(deltas: Deltas, source: Source, config: Mapping[str, Any]) -> Source | None:
    """Note one half of an adapter that lives beside its weight; return the one it takes over from.

    It is a parameter like any other: a later file's counts.

    Raises:
        DataError: the configuration does not say its scale.
    """
    match = _BUILT_IN.fullmatch(source.known_as)
    assert match is not None
    rank, alpha = config.get("lora_r"), config.get("lora_alpha")
    if not rank or not alpha:
        raise DataError(
            f"{source} is an adapter, but config.json does not say its scale.",
            cause="`lora_r` and `lora_alpha` are missing.",
            remedy="take the config.json of the 8-expert release.",
        )
    return _half(deltas, match["target"], match["side"], source, Delta(alpha / rank, rank, None))


def put_peft(deltas: Deltas, source: Source, told: Mapping[str, Any], origin: Path) -> bool:
    """Note one half of an adapter of peft; say whether it was one."""
    match = _LORA.fullmatch(source.known_as)
    if match is not None:
        rank, alpha = told["r"], told["lora_alpha"]
        _half(deltas, match["target"], match["side"], source, Delta(alpha / rank, rank, origin))
    return match is not None


def check_peft(told: Mapping[str, Any], path: Path) -> None:
    """Refuse an adapter of another kind than low-rank products with one scale.

    Raises:
        DataError: its configuration has no scale, or asks for more.
    """
    problems = [
        f"`{key}` is {told.get(key)!r}, no number above 0"
        for key in ("r", "lora_alpha")
        if not isinstance(told.get(key), int | float) or not told[key] > 0
    ]
    problems += [f"`{key}` is {told[key]!r}" for key in _OTHER_KINDS if told.get(key)]
    if told.get("peft_type", "LORA") != "LORA":
        problems.append(f"`peft_type` is {told['peft_type']!r}")
    if problems:
        raise DataError(
            f"{path} cannot be merged:{bullets(problems)}",
            cause="published adapters are plain low-rank products with one rank and one scale.",
            remedy="merge this one with the library that made it, then import the whole.",
        )


def misfits(deltas: Mapping[str, Sequence[Delta]], shapes: Mapping[str, Shape]) -> Iterator[str]:
    """Return why adapters do not fit their weights, for a person.

    Args:
        deltas: the name of a weight -> its adapters.
        shapes: the name of every weight, halves of other adapters included -> its shape.
    """
    for target, own in sorted(deltas.items()):
        weight = shapes.get(target)
        if weight is None:
            yield f"there is no {target} for its adapter"
            continue
        for delta in own:
            if delta.a is None or delta.b is None:
                yield f"the adapter of {target} has no {'A' if delta.a is None else 'B'}"
                continue
            a, b = delta.a.shape, delta.b.shape
            if a[:1] != (delta.rank,) or b[1:] != (delta.rank,):
                yield f"the adapter of {target} is {b} by {a}, not of rank {delta.rank}"
            elif (b[0], a[1]) != weight:
                yield f"the adapter of {target} makes {(b[0], a[1])}, not {weight}"


class Merging:
    """Published weights with their adapters merged, and whether every trained delta arrived."""

    def __init__(self, deltas: Mapping[str, Sequence[Delta]]) -> None:
        """Take the adapters: the name of a weight -> its own."""
        self._deltas = deltas
        self._trained = 0
        self._lost: list[str] = []

    def read(self, source: Source) -> Tensor:
        """Return a tensor with its adapters merged, in its own precision.

        A half of an adapter may have adapters of its own: the 8-expert variant's training puts them
        there.
        """
        tensor = source.read()
        own = self._deltas.get(source.known_as, ())
        if not own:
            return tensor
        whole = tensor.float()
        for delta in own:
            assert delta.a is not None
            assert delta.b is not None
            b = self.read(delta.b).float()
            if not b.any():
                continue  # nothing was trained; adding it would turn -0 into 0
            a = self.read(delta.a).float()
            change = delta.scale * (b @ a)
            self._trained += int(nonzero(change).sum())
            alone = (tensor.float() + change).to(tensor.dtype)
            self._lost += swallowed(source.known_as, tensor, change, alone)
            whole = whole + change
        return whole.to(tensor.dtype)

    def check(self) -> None:
        """Refuse what was read so far where a delta was trained and changes nothing.

        Raises:
            LineageError: its weight's precision cannot hold it.
        """
        check_arrived(self._trained, self._lost)


def _half(deltas: Deltas, target: str, side: str, source: Source, empty: Delta) -> Source | None:
    """Put A and B of one origin together; return what stood there."""
    own = deltas.setdefault(target + ".weight", [])
    delta = next((d for d in own if d.origin == empty.origin), None)
    if delta is None:
        delta = empty
        own.append(delta)
    if side == "A":
        earlier, delta.a = delta.a, source
    else:
        earlier, delta.b = delta.b, source
    return earlier
