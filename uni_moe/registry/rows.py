"""Single rows of the tables of samples: refused ones by page and reason, one sample by its key.

The tables are files of columns. Keys and reasons are looked through whole, which takes a moment for
a million; all other columns are read only as far as the rows that are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from uni_moe.artifacts import Layout
from uni_moe.data.validated import ACCEPTED, QUARANTINE
from uni_moe.errors import LineageError
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
    """A page of refused samples: how many there are in all, by reason, and these.

    `lost` names the modalities whose quarantine is kept nowhere here.
    """

    total: int
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
    total, skip = 0, (page - 1) * PAGE
    for modality, member in data.of("validated").items():
        if not member.results.get("quarantined", 1):
            continue
        file = _file(layout, member, QUARANTINE)
        if file is None:
            lost.append(modality)
            continue
        places = []
        for place, codes in enumerate(_column(file, "reasons")):
            own = codes.split(",") if codes else []
            counted.update(own)
            if reason is None or reason in own:
                places.append(place)
        first = max(0, skip - total)
        wanted = places[first : first + PAGE - len(rows)] if total + len(places) > skip else []
        rows += _rows(file, wanted)
        total += len(places)
    return RefusedPage(total, dict(counted.most_common()), tuple(rows), tuple(lost))


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
    file = None if folder is None else Path(folder) / name
    return file if file is not None and file.is_file() else None


def _column(file: Path, name: str) -> list[str | None]:
    try:
        read: list[str | None] = pq.read_table(file, columns=[name]).column(name).to_pylist()
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(file, error) from error
    return read


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
            for batch in table.iter_batches(_BATCH, columns=names):
                inside = [one - start for one in places if start <= one < start + batch.num_rows]
                if inside:
                    yield from batch.take(inside).to_pylist()
                start += batch.num_rows
                if start > places[-1]:
                    return
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> LineageError:
    return LineageError(
        f"{file.parent.name}/{file.name} cannot be read: {error}",
        cause="it was changed, or another version of the project wrote it.",
        remedy="let its stage run again: `uni-moe run`.",
    )
