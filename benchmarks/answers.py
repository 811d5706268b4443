"""What a question's measurements say: claims held against bars, as tables and as JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.rounds import WALL, Contender, Measured, middle

UNKNOWN = "not measured"


@dataclass(frozen=True)
class Bar:
    """A limit; asked for where `where` stands in the machine's name, or everywhere."""

    value: float
    at_most: bool = False
    where: str = ""

    def is_asked(self, machine: str) -> bool:
        """Return whether a machine of this name is held to it."""
        return self.where.lower() in machine.lower()

    def is_reached(self, value: float) -> bool:
        """Return whether a value keeps the limit."""
        return value <= self.value if self.at_most else value >= self.value

    def __str__(self) -> str:
        """Return how tables show it."""
        where = f" ({self.where})" if self.where else ""
        return f"{'at most' if self.at_most else 'at least'} {self.value:g}{where}"


def at_most(value: float) -> Bar:
    """Return a limit from above."""
    return Bar(value, at_most=True)


def at_least(value: float, where: str = "") -> Bar:
    """Return a limit from below."""
    return Bar(value, where=where)


Bars = Mapping[tuple[Contender, Contender], Bar]
"""(contender, over whom) -> the limit of their ratio."""


@dataclass(frozen=True)
class Claim:
    """One contender's time over another's; without a bar it is only told."""

    what: Contender
    over: Contender
    bar: Bar | None = None


@dataclass(frozen=True, kw_only=True)
class _Line(ABC):
    """A line of an answer, with a bar or without; `facts` say what else was seen."""

    bar: Bar | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    @abstractmethod
    def name(self) -> str:
        """What was looked at."""

    @property
    @abstractmethod
    def value(self) -> float | None:
        """What the bar limits; None where nothing was measured."""

    def reached(self, machine: str) -> bool | None:
        """Return whether the bar is kept; None where none is asked for on this machine."""
        if self.bar is None or not self.bar.is_asked(machine):
            return None
        return self.value is not None and self.bar.is_reached(self.value)

    def miss(self, machine: str) -> str | None:
        """Return what is said of a bar that is missed."""
        if self.reached(machine) is not False:
            return None
        found = UNKNOWN if self.value is None else f"{self.value:.4g}"
        return f"{self.name}: {found}, {self.bar} is asked for"

    def _end(self, machine: str) -> tuple[str, str]:
        said = {None: "", True: "yes", False: "NO"}[self.reached(machine)]
        return str(self.bar or ""), "not asked here" if self.bar and not said else said

    def _verdict(self, machine: str) -> dict[str, Any]:
        bar = str(self.bar) if self.bar else None
        return {"bar": bar, "reached": self.reached(machine)}


@dataclass(frozen=True)
class Row(_Line):
    """One contender beside another; `ratios` holds one number per round, the bar their median."""

    what: str
    over: str
    seconds: float
    ratios: Sequence[float]

    @property
    def name(self) -> str:
        """Who over whom."""
        return f"{self.what} over {self.over}"

    @property
    def value(self) -> float:
        """The median of all rounds."""
        return middle(self.ratios)[1]

    def cells(self, machine: str) -> tuple[str, ...]:
        """Return the line as a table shows it."""
        low, mid, high = middle(self.ratios)
        spread = f"{low:.3f}-{high:.3f}"
        time = f"{self.seconds * 1e3:.3g} ms" if self.seconds < 0.1 else f"{self.seconds:.3f} s"
        return self.what, time, self.over, f"{mid:.3f}", spread, *self._end(machine)

    def to_json(self, machine: str) -> dict[str, Any]:
        """Return the line as a JSON object."""
        low, mid, high = middle(self.ratios)
        return {
            "what": self.what,
            "over": self.over,
            "seconds": short(self.seconds),
            "ratio": short(mid),
            "quartiles": [short(low), short(high)],
            **self._verdict(machine),
            "ratios": [short(ratio) for ratio in self.ratios],
            **self.facts,
        }


@dataclass(frozen=True)
class Absent(_Line):
    """A contender that could not be measured, and why; a bar that it has is missed."""

    what: str
    why: str

    @property
    def name(self) -> str:
        """Who, and why."""
        return f"{self.what} ({self.why})"

    @property
    def value(self) -> None:
        """Nothing."""
        return

    def cells(self, machine: str) -> tuple[str, ...]:
        """Return the line as a table shows it."""
        return self.what, self.why, "", "", "", *self._end(machine)

    def to_json(self, machine: str) -> dict[str, Any]:
        """Return the line as a JSON object."""
        return {"what": self.what, "absent": self.why, **self._verdict(machine), **self.facts}


@dataclass(frozen=True)
class Number(_Line):
    """One quantity in its unit, measured or counted; None could not be."""

    what: str
    found: float | None
    unit: str = ""

    @property
    def name(self) -> str:
        """What it is, with its unit."""
        return f"{self.what}, {self.unit}" if self.unit else self.what

    @property
    def value(self) -> float | None:
        """The quantity."""
        return self.found

    def cells(self, machine: str) -> tuple[str, ...]:
        """Return the line as a table shows it."""
        if self.found is None:
            return self.what, UNKNOWN, *self._end(machine)
        shown = f"{self.found:.4g}" if abs(self.found) < 1000 else f"{self.found:,.0f}"
        return self.what, f"{shown} {self.unit}".rstrip(), *self._end(machine)

    def to_json(self, machine: str) -> dict[str, Any]:
        """Return the line as a JSON object."""
        value = None if self.found is None else short(self.found)
        about = {"what": self.what, "value": value, "unit": self.unit}
        return {**about, **self._verdict(machine), **self.facts}


@dataclass(frozen=True)
class Case:
    """One set of sizes and what was found with them: contenders beside each other, and numbers.

    `clock` says what time is measured in.
    """

    title: str
    rows: Sequence[Row | Absent] = ()
    numbers: Sequence[Number] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    clock: str = WALL

    def missed(self, machine: str) -> list[str]:
        """Return what is said of the bars that this machine misses."""
        said = (line.miss(machine) for line in (*self.rows, *self.numbers))
        return [f"{self.title}: {one}" for one in said if one is not None]

    def to_json(self, machine: str) -> dict[str, Any]:
        """Return the case as a JSON object."""
        return {
            "title": self.title,
            "clock": self.clock,
            **self.facts,
            "rows": [row.to_json(machine) for row in self.rows],
            "numbers": [number.to_json(machine) for number in self.numbers],
        }

    def text(self, machine: str) -> str:
        """Return the title, the tables and what else was seen."""
        parts = [f"{self.title}; {self.clock}"]
        if self.rows:
            parts.append(table(ROWS, [row.cells(machine) for row in self.rows]))
        if self.numbers:
            parts.append(table(NUMBERS, [number.cells(machine) for number in self.numbers]))
        parts += [f"  {name.replace('_', ' ')}: {value}" for name, value in self.facts.items()]
        return "\n".join(parts)


def rows_of(measured: Measured, claims: Sequence[Claim]) -> list[Row | Absent]:
    """Hold what was measured against what is claimed, and name what was not."""
    rows: list[Row | Absent] = []
    for claim in claims:
        lacking = [one for one in (claim.what, claim.over) if one not in measured.seconds]
        if lacking:
            why = measured.absent.get(lacking[0], f"there is no {lacking[0]}")
            rows.append(Absent(str(claim.what), why, bar=claim.bar))
            continue
        facts: dict[str, Any] = {"calls": measured.calls[claim.what]}
        peak = measured.peak_bytes[claim.what]
        if peak is not None:
            facts["peak_bytes"] = peak
        seconds = middle(measured.seconds[claim.what])[1]
        ratios = measured.ratios(claim.what, claim.over)
        names = str(claim.what), str(claim.over)
        rows.append(Row(*names, seconds, ratios, bar=claim.bar, facts=facts))
    return rows


ROWS = ("what", "time", "over", "ratio", "quartiles", "bar", "reached")
NUMBERS = ("what", "value", "bar", "reached")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the lines under a head, in columns; one without an entry is left out."""
    columns = [column for column in zip(head, *rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in zip(*columns, strict=True)
    )
    return "\n".join(f"  {line}".rstrip() for line in padded)


def short(value: float) -> float:
    """Return four digits of a number."""
    return float(f"{value:.4g}")
