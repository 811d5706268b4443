"""The ledger of a training that is going on: who was seen at which step, written as it happens.

Entries wait in memory and go to disk in parts, each whole or absent. A part ends where a training
state is kept, which keeps the ledger's position and its tree; so a training that goes on from a
state drops the parts behind it and records them again. One process of a training keeps it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from uni_moe.artifacts import whole_file
from uni_moe.data.exposures import FILE, LedgerEntry, leaf_of, read_entries, write_entries
from uni_moe.errors import StageError, unwritten
from uni_moe.merkle import Tree, tree_of
from uni_moe.train.batches import StepReport

_MOST_WAITING = 50_000  # entries in memory


class Ledger:
    """The exposures of one training so far."""

    def __init__(self, folder: Path) -> None:
        """Take a folder of its own; `begin` or `resume` says what to do with what lies there."""
        self._folder = folder
        self._tree, self._waiting = Tree(), list[LedgerEntry]()
        self._step = 0  # the last one recorded

    def begin(self) -> None:
        """Begin anew: forget what an earlier training left in the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._tree, self._waiting, self._step = Tree(), [], 0

    def resume(self, position: Mapping[str, Any]) -> None:
        """Go back to a position that `position` returned: what was recorded later is dropped.

        Raises:
            StageError: the parts up to there are not those that were written.
        """
        self._waiting, self._step = [], position["step"]
        for part in self._parts():
            if _last_step(part) > self._step:
                part.unlink()
        kept = Tree.from_json(position["tree"])
        self._tree = _tree_of_files(self._parts(), self._folder)
        if self._tree != kept:
            raise StageError(
                f"The ledger in {self._folder} is not the one of the training state at step "
                f"{self._step}: {self._tree.size} entries, {kept.size} were recorded.",
                cause="its parts were changed, added or removed since.",
                remedy=f"remove {self._folder.parent} and run the stage again, from its start.",
            )

    def add(self, report: StepReport) -> None:
        """Record the draws of a step."""
        assert report.step > self._step, f"step {report.step} comes after step {self._step}"
        for rank, seen in report.seen:
            entry = LedgerEntry(
                report.step,
                rank,
                seen.slot,
                seen.sample,
                seen.key,
                seen.modality,
                seen.source,
                seen.tokens,
                seen.truncated,
            )
            self._tree.add(leaf_of(entry))
            self._waiting.append(entry)
        self._step = report.step
        if len(self._waiting) >= _MOST_WAITING:
            self._flush()

    def position(self) -> dict[str, Any]:
        """Bring all to disk; return what a training state keeps to come back here."""
        self._flush()
        return {"step": self._step, "tree": self._tree.to_json()}

    def entries(self) -> Iterator[LedgerEntry]:
        """Give all that was recorded so far, in order."""
        self._flush()
        return read_entries(*self._parts())

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the whole ledger as one file of an artifact; return its entries and its root.

        How often a training was stopped does not show in the bytes.

        Raises:
            StageError: what is on disk is not what was recorded.
        """
        write_entries(folder / FILE, self.entries())
        found = tree_of(map(leaf_of, read_entries(folder / FILE)))
        if found != self._tree:
            raise StageError(
                f"The ledger holds {found.size} entries, {self._tree.size} were recorded.",
                cause=f"parts in {self._folder} were changed while the stage ran.",
                remedy=f"remove {self._folder.parent} and run the stage again, from its start.",
            )
        return {"entries": found.size, "root": found.root().hex()}

    def _flush(self) -> None:
        """Write what waits as a part.

        Raises:
            StoreError: the disk is full; the parts before it are as they were.
            StageError: the disk refuses it; the parts before it are as they were.
        """
        if not self._waiting:
            return
        part = self._folder / f"part-{self._waiting[0].step:08d}-{self._step:08d}.parquet"
        try:
            with whole_file(part) as draft:
                write_entries(draft, self._waiting)
        except OSError as error:
            what = f"The ledger could not be written to {self._folder}: {error}"
            raise unwritten(error, what) from error
        self._waiting = []

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.parquet"))


def _tree_of_files(parts: list[Path], folder: Path) -> Tree:
    return tree_of(map(leaf_of, _entries_of(parts, folder)))


def _entries_of(parts: list[Path], folder: Path) -> Iterator[LedgerEntry]:
    try:
        yield from read_entries(*parts)
    except (OSError, ValueError) as error:  # pyarrow's own errors are both
        raise StageError(
            f"A part of the ledger in {folder} cannot be read: {error}",
            cause="it was changed since it was written, or the disk is broken.",
            remedy=f"remove {folder.parent} and run the stage again, from its start.",
        ) from error


def _last_step(part: Path) -> int:
    return int(part.stem.rpartition("-")[2])
