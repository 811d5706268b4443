"""Workspaces of scheduled runs: those that no run came back to, and those that may hold leftovers.

All in them can be made again; a run that finds none begins with what its home has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from uni_moe.artifacts import Layout
from uni_moe.housekeeping.plan import Going
from uni_moe.storage.objects import Files


def old_apart(layout: Layout, before: datetime) -> list[Path]:
    """Return the workspaces in which nothing was written since a time: every run writes params."""
    places = sorted(place for place in layout.apart.glob("[0-9]*") if place.is_dir())
    return [place for place in places if newest(place) < before.timestamp()]


def young_apart(layout: Layout, old: Sequence[Path]) -> list[Layout]:
    """Return the workspaces that are not old; they lie as deep as their paths climb."""
    found = []
    for place in sorted(place for place in layout.apart.glob("[0-9]*") if place not in old):
        root = place / "w"
        while (root / "w").is_dir() and not (root / "w").is_symlink():
            root /= "w"
        found.append(Layout(root))
    return found


def apart_goes(layout: Layout, old: Sequence[Path]) -> Iterator[Going]:
    """Give the workspaces that go whole; what they share with DVC's cache frees nothing yet."""
    for place in old:
        why = f"no run came back to it since {datetime.fromtimestamp(newest(place)):%Y-%m-%d}"
        own = (place / name for name in Files(place).objects())
        size = sum(file.stat().st_size for file in own if file.stat().st_nlink == 1)
        name = layout.name_of(place)
        yield Going("here", "apart", name, why, size, (name,))


def newest(folder: Path) -> float:
    """Return when something was last written below a folder."""
    times = [one.at_s for one in Files(folder).listed().values()]
    return max(times, default=folder.stat().st_mtime)
