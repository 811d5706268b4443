"""A plan of housekeeping: what goes and why, what stays and why. Nothing here is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from uni_moe.registry.travel import size_text

Where = Literal["here", "remote"]
KINDS = {  # kind -> what a person calls it
    "weights": "weights of retired versions",
    "store": "what no registered version has in the store",
    "data": "DVC's data that no lock names",
    "runs": "bulky records of old runs",
    "states": "training states that nobody goes on from",
    "features": "features that nothing reads",
    "apart": "workspaces of scheduled runs",
    "leftovers": "what a crash left",
}


@dataclass(frozen=True)
class Going:
    """One thing that goes: files or folders below a place, in the order in which they may."""

    where: Where
    kind: str
    name: str
    why: str
    size_bytes: int
    paths: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object; of many paths only how many there are."""
        told = asdict(self)
        count = len(told.pop("paths"))
        return {**told, "paths": count}


@dataclass(frozen=True)
class Staying:
    """One thing that stays, and why."""

    where: Where
    name: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What goes and what stays."""

    goes: tuple[Going, ...] = ()
    stays: tuple[Staying, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes that are freed."""
        return sum(one.size_bytes for one in self.goes)

    def __add__(self, other: Plan) -> Plan:
        """Return both plans as one."""
        return Plan(self.goes + other.goes, self.stays + other.stays)

    def within(self, agreed: Plan) -> Plan:
        """Return what of this plan was agreed to: what came since goes another time."""
        known = {(one.where, one.kind, path) for one in agreed.goes for path in one.paths}
        goes = []
        for one in self.goes:
            paths = tuple(path for path in one.paths if (one.where, one.kind, path) in known)
            if paths:
                goes.append(replace(one, paths=paths))
        return Plan(tuple(goes), self.stays)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON object."""
        return {
            "goes": [one.to_json() for one in self.goes],
            "stays": [asdict(one) for one in self.stays],
            "size_bytes": self.size_bytes,
        }

    def text(self) -> str:
        """Return the plan for a person."""
        lines = []
        for where in ("here", "remote"):
            goes = [one for one in self.goes if one.where == where]
            lines += _goes(where, goes)
        stays = [f"  {one.where:7} {one.name}: {one.why}" for one in self.stays]
        lines += ["stays:", *stays] if stays else []
        return "\n".join([*lines, f"{size_text(self.size_bytes)} in all"])


def _goes(where: str, goes: Sequence[Going]) -> list[str]:
    if not goes:
        return [f"nothing goes {_PLACES[where]}"] if where == "here" else []
    lines = [f"goes {_PLACES[where]}:"]
    for kind in sorted({one.kind for one in goes}, key=list(KINDS).index):
        own = [one for one in goes if one.kind == kind]
        lines.append(f"  {KINDS[kind]}: {size_text(sum(one.size_bytes for one in own))}")
        lines += [f"    {one.name}: {size_text(one.size_bytes)}; {one.why}" for one in own]
    return lines


_PLACES = {"here": "from this workspace", "remote": "from the remote"}
