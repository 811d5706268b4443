"""What a run's folder tells of a training: each byte is read once, and kept in little room."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dashboard.sources.thinned import Thinned
from uni_moe.registry.cards import lines_from
from uni_moe.registry.metric_tables import TIME
from uni_moe.registry.points import points_of
from uni_moe.registry.read import Point
from uni_moe.runs import EVENTS, METRICS

_SLICE_BYTES = 1 << 20
_PATIENCE_S = 0.4  # of one look; a long file is read on by the next
MOST_KEYS = 128  # of numbers, each a curve; the index holds all
_MOST_EVENTS = 200
_LONGEST = 600  # letters of what an event says
WENT_BACK = "went back"  # what a training does to skip a step that went wrong
_NOT_OURS = "router/"  # numbers of layers and experts have a page of their own


@dataclass(frozen=True)
class Event:
    """Something that happened in a run: when, what, at which step, and what is said of it."""

    time: str
    event: str
    step: int | None
    text: str


@dataclass
class Tail:
    """A run's numbers and events as far as they were read; its size does not grow with them."""

    run: str
    position: int = 0
    size: int = 0
    curves: dict[str, Thinned] = field(default_factory=dict)
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=_MOST_EVENTS))
    counts: Counter[str] = field(default_factory=Counter)
    happened: int = 0  # events of all kinds
    steps: int | None = None  # that the training means to take
    is_whole: bool = False  # all is read that was there at the last look
    has_more: bool = False  # more was told than is kept
    _step: int | None = None
    _events_position: int = 0

    def read(
        self, folder: Path, patience_s: float = _PATIENCE_S, *, events_alone: bool = False
    ) -> None:
        """Read on; what does not fit into the patience waits for the next call."""
        until = time.monotonic() + patience_s
        self._read_events(folder / EVENTS, until)
        if events_alone:
            return
        file = folder / METRICS
        self.size = _size(file)
        if self.size < self.position:  # another file took its place
            self.position, self.curves, self._step, self.has_more = 0, {}, None, False
        self.is_whole = True
        while self.position < self.size:
            lines, end = lines_from(file, self.position, _SLICE_BYTES)
            if end == self.position:  # the last line waits for its end
                break
            self.position = end
            for key, step, value in points_of(lines):
                self._add(key, step, value)
            if time.monotonic() > until:
                self.is_whole = self.position >= self.size
                break

    @property
    def last_step(self) -> int | None:
        """The last step that was told."""
        return self._step

    def keys(self) -> list[str]:
        """Return what was told, by name."""
        return sorted(self.curves.keys() - {TIME})

    def odd(self, key: str) -> dict[str, int]:
        """Return how many numbers of a key were nan, inf or -inf."""
        return dict(self.curves[key].odd) if key in self.curves else {}

    def points(self, key: str) -> list[Point]:
        """Return the points of a key, none where it was never told."""
        return self.curves[key].points() if key in self.curves else []

    def _add(self, key: str, step: int, value: float) -> None:
        if key.startswith(_NOT_OURS):
            return
        if self._step is not None and step < self._step:  # it went back, and tells again from here
            for one in self.curves.values():
                one.cut(step)
        self._step = step
        curve = self.curves.get(key)
        if curve is None:
            if len(self.curves) >= MOST_KEYS:
                self.has_more = True
                return
            curve = self.curves[key] = Thinned()
        curve.add(step, value)

    def _read_events(self, file: Path, until: float) -> None:
        size = _size(file)
        if size < self._events_position:
            self._events_position = 0
            self.events.clear()
            self.counts.clear()
            self.happened = 0
        while self._events_position < size and time.monotonic() < until:
            lines, end = lines_from(file, self._events_position, _SLICE_BYTES)
            if end == self._events_position:
                return
            self._events_position = end
            for line in lines:
                self._note(line)

    def _note(self, line: Mapping[str, Any]) -> None:
        told = _event(line)
        self.happened += 1
        if len(self.counts) < MOST_KEYS or told.event in self.counts:
            self.counts[told.event] += 1
        self.events.append(told)
        if told.event == "training" and isinstance(line.get("steps"), int):
            self.steps = line["steps"]


def _event(line: Mapping[str, Any]) -> Event:
    step = line.get("step")
    if line.get("event") == "skipped" and isinstance(line.get("back_to"), int):
        text = f"went back to step {line['back_to']} and left step {step} out"
        line = {name: line[name] for name in ("time", "step") if name in line}
        line |= {"event": WENT_BACK, "text": text}
    facts = {key: value for key, value in line.items() if key not in ("time", "event", "step")}
    text = str(facts["text"]) if isinstance(facts.get("text"), str) else _facts(facts)
    if isinstance(facts.get("kind"), str):
        text = f"{facts['kind']}: {text}"
    return Event(
        str(line.get("time", ""))[:40],
        str(line.get("event", "?"))[:60],
        step if isinstance(step, int) and abs(step) < 2**63 else None,
        text[:_LONGEST],
    )


def _facts(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {_short(value)}" for key, value in facts.items())


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{text[:77]}..." if len(text) > 80 else text


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
