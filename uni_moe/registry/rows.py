"""Single rows of the tables of samples: refused ones by page and reason, one sample by its key.

The tables are files of columns. Keys and reasons are looked through whole, which takes a moment for
a million; of all other columns only the groups of rows are read that hold what is asked for, and
these as far as it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uni_moe.artifacts import Layout
from uni_moe.data.validated import ACCEPTED, QUARANTINE
from uni_moe.errors import LineageError
from uni_moe.registry.coded import coded, read_coded
from uni_moe.registry.generations import Generation, Member, folder_of

PAGE = 10
_COLUMNS = (
    *("key", "id", "source", "license", "subject", "split", "modality", "task", "caption"),
    *("transcript", "conversation", "media", "problem_codes", "problem_details", "n_media"),
    *("width_px", "height_px", "frames", "duration_s", "sample_rate_hz", "channels", "codec"),
    *("media_bytes", "reasons"),
)
_BATCH = 4_096
Row = Mapping[str, Any]


@dataclass(frozen=True)
class RefusedPage:
    """A page of refused samples: how many there are of the reason, in all and by reason, and these.

    `lost` names the modalities whose quarantine is kept nowhere here.
    """

    total: int
    every: int
    reasons: Mapping[str, int]
    rows: tuple[Row, ...]
    lost: tuple[str, ...]


def refused_page(layout: Layout, data: Generation, reason: str | None, page: int) -> RefusedPage:
    """Return a page of a generation's refused samples, those of one reason or all.

    Args:
        layout: the workspace.
        data: the generation.
        reason: a code; None takes all.
        page: counted from 1.

    Raises:
        LineageError: a table cannot be read.
    """
    lost, counted, rows = [], Counter[str](), list[Row]()
    total, every, skip = 0, 0, (page - 1) * PAGE
    for modality, member in data.of("validated").items():
        if not member.results.get("quarantined", 1):
            continue
        file = _file(layout, member, QUARANTINE)
        if file is None:
            lost.append(modality)
            continue
        codes, told = _reasons(file)
        each = [text.split(",") if text else [] for text in told]
        for own, count in zip(each, np.bincount(codes, minlength=len(told)).tolist(), strict=True):
            counted.update(dict.fromkeys(own, count))
        asked = [n for n, own in enumerate(each) if reason is None or reason in own]
        places = np.flatnonzero(np.isin(codes, asked))
        first = max(0, skip - total)
        rows += _rows(file, places[first : first + PAGE - len(rows)].tolist())
        total += len(places)
        every += len(codes)
    return RefusedPage(total, every, dict(counted.most_common()), tuple(rows), tuple(lost))


def sample_row(layout: Layout, data: Generation, key: str) -> Row | None:
    """Return a sample's row by its key, accepted or refused; None where no table here has it.

    Raises:
        LineageError: a table cannot be read.
    """
    for member in data.of("validated").values():
        for name in (ACCEPTED, QUARANTINE):
            file = _file(layout, member, name)
            if file is None:
                continue
            place = _place(file, key)
            if place >= 0:
                return next(iter(_rows(file, [place])), None)
    return None


def _file(layout: Layout, member: Member, name: str) -> Path | None:
    folder = folder_of(layout, member)
    file = None if folder is None else folder / name
    return file if file is not None and file.is_file() else None


def _reasons(file: Path) -> tuple[Any, list[str]]:
    """Return the place of each row's reasons among those that there are, and these."""
    try:
        return coded(read_coded(file, ["reasons"], ["reasons"]), "reasons")
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(file, error) from error


def _place(file: Path, key: str) -> int:
    try:
        found: int = pc.index(pq.read_table(file, columns=["key"]).column("key"), key).as_py()
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(file, error) from error
    return found


def _rows(file: Path, places: Sequence[int]) -> Iterator[Row]:
    if not places:
        return
    try:
        with pq.ParquetFile(file) as table:
            names = [name for name in _COLUMNS if name in table.schema_arrow.names]
            start = 0
            for group in range(table.num_row_groups):
                count = table.metadata.row_group(group).num_rows
                inside = [one - start for one in places if start <= one < start + count]
                if inside:
                    yield from _of_group(table, group, names, inside)
                start += count
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(file, error) from error


def _of_group(
    table: pq.ParquetFile, group: int, names: Sequence[str], places: Sequence[int]
) -> Iterator[Row]:
    start = 0
    for batch in table.iter_batches(_BATCH, row_groups=[group], columns=names):
        inside = [one - start for one in places if start <= one < start + batch.num_rows]
        if inside:
            yield from batch.take(inside).to_pylist()
        start += batch.num_rows
        if start > places[-1]:
            return


def _unreadable(file: Path, error: Exception) -> LineageError:
    return LineageError(
        f"{file.parent.name}/{file.name} cannot be read: {error}",
        cause="it was changed, or another version of the project wrote it.",
        remedy="let its stage run again: `uni-moe run`.",
    )
