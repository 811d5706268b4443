"""The routing that a run keeps, read within bounds: a long one is looked at here and there.

What was read before stays with the page, so a live run costs its new lines alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dashboard.routing import Step, in_parts, joined, step_of
from dashboard.sources.runs import has_folder
from dashboard.sources.workspace import workspace
from uni_moe.registry.cards import json_file, last_lines, lines_from
from uni_moe.registry.parcels import REMOVED
from uni_moe.runs import EVENTS, RECORD, ROUTING

MOST_BYTES = 4_000_000  # read for one look
KEPT = 400  # steps that are kept of all
LAST = 20  # steps that are kept whole at the end
_ALARMS = ("collapse", "low_entropy", "dead_expert")
_EVENT_BYTES = 1_000_000


@dataclass
class Kept:
    """What was read of a run's routing: some of all steps, and all of the last ones.

    `is_part` says that not every step was read.
    """

    steps: list[Step] = field(default_factory=list)
    last: deque[Step] = field(default_factory=lambda: deque(maxlen=LAST))
    position: int = 0
    is_part: bool = False
    _told: dict[int, list[Step]] = field(default_factory=dict)

    def parts(self, most: int) -> list[Step]:
        """Return all steps joined to at most so many; counted once as long as none comes."""
        if most not in self._told:
            self._told[most] = in_parts(self.steps, most)
        return self._told[most]

    def end(self) -> Step:
        """Return the last steps as one; counted once as long as none comes."""
        if 0 not in self._told:
            self._told[0] = [joined(list(self.last))]
        return self._told[0][0]

    def add(self, lines: Iterable[dict[str, Any]]) -> None:
        """Take lines in; every second step goes when too many are kept.

        A run that was resumed takes steps again: what it did of them before counts no more.
        """
        self._told.clear()
        for line in lines:
            step = step_of(line)
            if step is not None:
                for kept in (self.steps, self.last):
                    while kept and kept[-1].step >= step.step:
                        kept.pop()
                    kept.append(step)
        while len(self.steps) > KEPT:
            self.steps, self.is_part = self.steps[::2], True


def was_removed(run: str) -> bool:
    """Say whether housekeeping took the routing of a run that is here."""
    if not has_folder(run):
        return False
    told = json_file(workspace().runs / run / REMOVED)
    return isinstance(told, dict) and ROUTING in (told.get("files") or {})


def read_on(run: str, kept: Kept) -> Kept:
    """Return what is kept of a run's routing, with what was written since."""
    file = workspace().runs / run / ROUTING
    if not has_folder(run) or not file.is_file():
        return Kept()
    size = file.stat().st_size
    if size < kept.position:
        kept = Kept()
    if size - kept.position > MOST_BYTES:
        return _here_and_there(file, size)
    while kept.position < size:
        lines, position = lines_from(file, kept.position, MOST_BYTES)
        if position == kept.position:
            break
        kept.add(lines)
        kept.position = position
    return kept


def _here_and_there(file: Path, size: int) -> Kept:
    """Look at lines at even distances, and at the end."""
    _, line = lines_from(file, 0, 1)
    line = max(1, line)
    kept = Kept(is_part=True)
    looks = max(2, min(KEPT // 2, MOST_BYTES // (4 * line)))
    for look in range(looks):
        lines, _ = lines_from(file, size * look // looks, 2 * line)
        kept.add(lines[:1])
    start = max(0, size - min(MOST_BYTES // 2, 2 * LAST * line))
    kept.last.clear()  # they lie far apart
    lines, kept.position = lines_from(file, start, size - start)
    kept.add(lines)
    return kept


def alarms(run: str) -> list[str]:
    """Return what a run's router alarms say, the latest last."""
    if not has_folder(run):
        return []
    lines = last_lines(workspace().runs / run / EVENTS, _EVENT_BYTES)
    told = [one for one in lines if one.get("event") == "alarm" and one.get("kind") in _ALARMS]
    return [f"step {one.get('step')}: {one.get('text')}" for one in told[-20:]]


def still_s(run: str, now: float) -> float:
    """Return for how long nothing was written to a run's routing, or to its record without one."""
    folder = workspace().runs / run
    for name in (ROUTING, RECORD):
        if has_folder(run) and (folder / name).is_file():
            return now - (folder / name).stat().st_mtime
    return float("inf")
