"""Whether what is computed here can be held against what was computed then, bit for bit. Pure.

The same bits come only from the same code, packages, machine, routes and number of ranks. What
gives freed memory back (the allocator) changes none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uni_moe.records import Card

SPREAD = (
    *("launcher", "processes", "nodes", "zero_stage", "expert_parallel"),
    *("offload_optimizer", "activation_checkpointing"),
)
ROUTES = ("threads", "matmul", "attention", "experts", "elementwise")
MACHINE = ("device", "accelerator", "torch", "cpu", "machine", "processor", "native")


@dataclass(frozen=True)
class Origin:
    """Under which circumstances a run made an artifact; None where its record does not say.

    `computed` holds routes and machine, `spread` how many ranks shared the work; `moved` says what
    changed while it was trained, on another machine that it went on on.
    """

    run: str
    commit: str | None
    python: str | None
    packages: Mapping[str, str | None]
    computed: Mapping[str, Any] | None = None
    spread: Mapping[str, Any] | None = None
    moved: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Here:
    """The circumstances of this process; `computed` is None where nothing asks for it."""

    python: str
    packages: Mapping[str, str | None]
    computed: Mapping[str, Any] | None


def code_differs(card: Card, now: Collection[str], origins: Sequence[Origin]) -> str | None:
    """Say that the code of an artifact's stage is another one now, and where the old one is.

    `now` holds the hashes that the stage's code may have here.
    """
    if card.code in now:
        return None
    commits = [one.commit for one in origins if one.commit]
    where = f"check out {commits[-1]}" if commits else "no run record tells its commit"
    return f"code: {card.stage} was made by {card.code[:12]}, another code than here; {where}"


def other_circumstances(stage: str, origins: Sequence[tuple[Origin, Here]]) -> str | None:
    """Say how all runs that made an artifact differ from here, None where one of them does not.

    Each run stands with the circumstances under which it would be repeated here. Nothing is said of
    an artifact that no run record tells of: see `unknown`.
    """
    if not origins or comparable(origins) is not None:
        return None
    run, here = origins[-1]
    return f"{stage} (run {run.run}): {'; '.join(_differing(run, here))}"


def comparable(origins: Sequence[tuple[Origin, Here]]) -> Origin | None:
    """Return the last run that can be repeated here as it was, None where none can."""
    return next((one for one, here in reversed(origins) if not _differing(one, here)), None)


def unknown(origins: Sequence[Origin], *, trained: bool) -> bool:
    """Say whether nobody knows under which circumstances an artifact was made."""
    return not origins or (trained and all(one.computed is None for one in origins))


def _differing(origin: Origin, here: Here) -> list[str]:
    minor = [".".join((text or "").split(".")[:2]) for text in (origin.python, here.python)]
    said = [_other("python", *minor)] if origin.python and minor[0] != minor[1] else []
    said += [
        _other(name, version, here.packages[name])
        for name, version in sorted(origin.packages.items())
        if name in here.packages and version != here.packages[name]
    ]
    if origin.computed is not None and here.computed is not None:
        unused = () if origin.computed.get("elementwise") != "torch" else ("native",)
        said += [
            _other(name, origin.computed[name], here.computed.get(name))
            for name in (*ROUTES, *MACHINE)
            if name in origin.computed and name not in unused
            if origin.computed[name] != here.computed.get(name)
        ]
    said += [
        f"it went on where {name} was {pair[-1]}" for name, pair in sorted(origin.moved.items())
    ]
    return said + _spread(origin.spread)


def _spread(spread: Mapping[str, Any] | None) -> list[str]:
    if spread is None or spread.get("launcher", "none") == "none":
        return []
    if spread["launcher"] == "slurm" or spread.get("nodes", 1) > 1:
        return [f"it was trained on {spread.get('nodes', 1)} node(s) by {spread['launcher']}"]
    return []


def _other(name: str, then: object, now: object) -> str:
    return f"{name} was {then}, here it is {now}"
