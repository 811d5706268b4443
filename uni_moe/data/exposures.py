"""The table of exposures: which draw was learned at which step of a phase.

One row a draw, ordered by step and slot. The hash of a row covers everything but the rank, which
only says where a draw was computed; so the root of the rows is the same on any number of processes.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from uni_moe.errors import LineageError
from uni_moe.merkle import leaf_hash
from uni_moe.records import CAPTION, Card

FILE = "ledger.parquet"
_GROUP_ROWS = 65_536
_LEAST_OF_AN_ID = 8  # letters, so that a short word means no id

# column -> (type, what it says)
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "step": (pa.int32(), "the optimizer step, counted from 1"),
    "rank": (pa.int32(), "the process that computed the draw; no part of the row's hash"),
    "slot": (pa.int32(), "its place in the step's global batch, counted from 0"),
    "sample": (pa.string(), "the conversation's id: the hash of its turns and media"),
    "key": (pa.string(), "the conversation's key"),
    "modality": (pa.string(), "the modality it was drawn for"),
    "source": (pa.string(), "the source it comes from"),
    "tokens": (pa.int32(), "tokens that bore loss"),
    "truncated": (pa.int32(), "positions that were cut away"),
}
SCHEMA = pa.schema(
    [pa.field(n, kind, nullable=False, metadata={"doc": doc}) for n, (kind, doc) in COLUMNS.items()]
)


class LedgerEntry(NamedTuple):
    """One draw of one step, in the order of COLUMNS."""

    step: int
    rank: int
    slot: int
    sample: str
    key: str
    modality: str
    source: str
    tokens: int
    truncated: int


def leaf_of(entry: LedgerEntry) -> bytes:
    """Return the hash of an entry: of its columns but the rank as one line of text.

    They stand with a space between, and only the key, which is last, can hold one itself.
    """
    step, _, slot, sample, key, modality, source, tokens, truncated = entry
    line = f"{step} {slot} {tokens} {truncated} {sample} {modality} {source} {key}"
    return leaf_hash(line.encode())


def write_entries(file: Path, entries: Iterable[LedgerEntry]) -> None:
    """Write entries in groups of a fixed size. The same entries give the same bytes."""
    with pq.ParquetWriter(file, SCHEMA, compression="zstd", version="2.6") as writer:
        remaining = iter(entries)
        while rows := tuple(islice(remaining, _GROUP_ROWS)):
            writer.write_table(_table(rows), row_group_size=_GROUP_ROWS)


def read_entries(*files: Path) -> Iterator[LedgerEntry]:
    """Return the entries of files, one file after the other, a group at a time."""
    for file in files:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(_GROUP_ROWS):
                columns = [batch.column(name).to_pylist() for name in COLUMNS]
                yield from map(LedgerEntry._make, zip(*columns, strict=True))


def find(folder: Path, sample: str) -> Iterator[tuple[int, LedgerEntry]]:
    """Return the exposures of a sample in a folder's ledger: place, counted from 0, and entry.

    A sample is named by its key, which also means its caption, or by the beginning of its
    conversation's id.

    Raises:
        LineageError: there is no ledger, or it cannot be read.
    """
    try:
        yield from _find(folder, sample)
    except (OSError, ValueError) as error:  # pyarrow's own errors are both
        raise _unreadable(folder / FILE, error) from error


def holds(file: Path, keys: Collection[str]) -> bool:
    """Say whether a file of entries has one of these samples, or a caption of one.

    Raises:
        LineageError: it cannot be read.
    """
    asked = {*keys, *(key + CAPTION for key in keys)}
    try:
        with pq.ParquetFile(file) as table:
            batches = table.iter_batches(_GROUP_ROWS, columns=["key"])
            return any(not asked.isdisjoint(one.column(0).to_pylist()) for one in batches)
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def ledger_of(folder: Path) -> Iterator[LedgerEntry]:
    """Return the entries of an artifact's ledger.

    Raises:
        LineageError: there is none, or it cannot be read.
    """
    try:
        yield from read_entries(folder / FILE)
    except (OSError, ValueError) as error:
        raise _unreadable(folder / FILE, error) from error


def ledger_facts(card: Card, folder: Path) -> Mapping[str, Any]:
    """Return what a phase's card says of its ledger.

    Raises:
        LineageError: it says nothing: the artifact is no phase's.
    """
    facts: Mapping[str, Any] | None = card.results.get("ledger")
    if facts is None:
        raise LineageError(
            f"{folder} keeps no ledger.",
            cause=f"it is a {card.kind} of the stage {card.stage}, not what a phase trained, or an "
            "older version of the project made it.",
            remedy="name a phase: align@image, experts@audio, tune, or a registered model.",
        )
    return facts


def _unreadable(file: Path, error: Exception) -> LineageError:
    return LineageError(
        f"{file} cannot be read: {error}",
        cause="it was changed or removed after the stage had written it.",
        remedy="bring it back with `dvc checkout`, or let the stage run again.",
    )


def _find(folder: Path, sample: str) -> Iterator[tuple[int, LedgerEntry]]:
    keys = {sample, sample + CAPTION}
    by_id = len(sample) >= _LEAST_OF_AN_ID
    first = 0
    with pq.ParquetFile(folder / FILE) as table:
        for group in range(table.num_row_groups):
            columns = table.read_row_group(group, ["key", "sample"])
            told = zip(*(column.to_pylist() for column in columns.itercolumns()), strict=True)
            hits = [
                place
                for place, (key, one) in enumerate(told)
                if key in keys or (by_id and one.startswith(sample))
            ]
            if hits:
                rows = table.read_row_group(group).take(hits).select(list(COLUMNS)).to_pylist()
                yield from ((first + p, LedgerEntry(**r)) for p, r in zip(hits, rows, strict=True))
            first += columns.num_rows


def _table(rows: Sequence[LedgerEntry]) -> Any:  # noqa: ANN401 - pyarrow is untyped
    columns = zip(*rows, strict=True)
    arrays = [_array(values, item.type) for values, item in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _array(values: Sequence[Any], kind: Any) -> Any:  # noqa: ANN401 - pyarrow is untyped
    """Return a column, from buffers: `pa.array` would import pandas, for seconds."""
    if kind == pa.int32():
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(array("i", values))])
    texts = [text.encode() for text in values]
    ends = array("i", accumulate(map(len, texts), initial=0))
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(kind, len(values), buffers)
