"""What a question's measurements say: claims held against bars, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rounds import Contender, Measured, middle
from uni_moe.errors import ConfigError


@dataclass(frozen=True)
class Bar:
    """A limit for a ratio; `where` says on which machines it is asked for."""

    value: float
    at_most: bool = False
    where: str = ""

    def is_reached(self, ratio: float) -> bool:
        """Return whether a ratio keeps the limit."""
        return ratio <= self.value if self.at_most else ratio >= self.value

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


@dataclass(frozen=True)
class Claim:
    """One contender's time over another's; without a bar it is only told."""

    what: Contender
    over: Contender
    bar: Bar | None = None


@dataclass(frozen=True)
class Row:
    """A line of an answer. `ratios` holds one number per round, `facts` what else was seen."""

    what: str
    over: str
    seconds: float
    ratios: Sequence[float]
    bar: Bar | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether the median keeps the bar; None without one."""
        return None if self.bar is None else self.bar.is_reached(middle(self.ratios)[1])

    def cells(self) -> tuple[str, ...]:
        """Return the line as a table shows it."""
        low, mid, high = middle(self.ratios)
        reached = {None: "", True: "yes", False: "NO"}[self.reached]
        time = f"{self.seconds * 1e3:.1f} ms"
        bar = str(self.bar) if self.bar else ""
        return self.what, time, self.over, f"{mid:.3f}", f"{low:.3f}-{high:.3f}", bar, reached

    def to_json(self) -> dict[str, Any]:
        """Return the line as a JSON object."""
        low, mid, high = middle(self.ratios)
        return {
            "what": self.what,
            "over": self.over,
            "seconds": _short(self.seconds),
            "ratio": _short(mid),
            "quartiles": [_short(low), _short(high)],
            "bar": str(self.bar) if self.bar else None,
            "reached": self.reached,
            "ratios": [_short(ratio) for ratio in self.ratios],
            **self.facts,
        }


@dataclass(frozen=True)
class Case:
    """One set of sizes and what was found with them."""

    title: str
    rows: Sequence[Row]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the case as a JSON object."""
        return {"title": self.title, **self.facts, "rows": [row.to_json() for row in self.rows]}

    def __str__(self) -> str:
        """Return the title, the table and what else was seen."""
        told = [f"{name.replace('_', ' ')}: {value}" for name, value in self.facts.items()]
        return "\n".join([self.title, table(self.rows), *(f"  {line}" for line in told)])


def rows_of(measured: Measured, claims: Sequence[Claim]) -> list[Row]:
    """Hold what was measured against what is claimed."""
    rows = []
    for claim in claims:
        facts: dict[str, Any] = {"calls": measured.calls[claim.what]}
        peak = measured.peak_bytes[claim.what]
        if peak is not None:
            facts["peak_bytes"] = peak
        seconds = middle(measured.seconds[claim.what])[1]
        ratios = measured.ratios(claim.what, claim.over)
        rows.append(Row(str(claim.what), str(claim.over), seconds, ratios, claim.bar, facts))
    return rows


HEAD = ("what", "time", "over", "ratio", "quartiles", "bar", "reached")


def table(rows: Sequence[Row]) -> str:
    """Return the lines under a head, in columns."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(f"  {line}".rstrip() for line in padded)


def add_to(file: Path, question: str, answer: Mapping[str, Any]) -> None:
    """Put a question's answer into a file of answers; those of other questions stay.

    Raises:
        ConfigError: the file holds something else.
    """
    try:
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        whole = {**known, question: answer}
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{file} holds no answers of benchmarks.",
            cause=f"it cannot be read as a JSON object: {error}.",
            remedy="name another file with --json, or remove this one.",
        ) from error
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.draft")
    draft.write_text(_lines(whole) + "\n", encoding="utf-8")
    draft.replace(file)


def _lines(value: Any, indent: int = 0) -> str:  # noqa: ANN401 - any JSON value
    """Write JSON with one line per row of numbers, so that differences can be read."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(flat) + indent <= 100:
        return flat
    if isinstance(value, list) and not any(isinstance(one, dict | list) for one in value):
        return flat
    inside = "  " * (indent + 1)
    if isinstance(value, dict):
        parts = [f"{json.dumps(name)}: {_lines(one, indent + 1)}" for name, one in value.items()]
    else:
        parts = [_lines(one, indent + 1) for one in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    body = f",\n{inside}".join(parts)
    return f"{opening}\n{inside}{body}\n{'  ' * indent}{closing}"


def _short(value: float) -> float:
    return float(f"{value:.4g}")
