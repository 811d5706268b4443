"""The table of exposures: which draw was learned at which step of a phase.

One row a draw, ordered by step and slot. The hash of a row covers everything but the rank, which
only says where a draw was computed; so the root of the rows is the same on any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from uni_moe.merkle import leaf_hash

FILE = "ledger.parquet"
_GROUP_ROWS = 65_536

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


class Entry(NamedTuple):
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


def leaf_of(entry: Entry) -> bytes:
    """Return the hash of an entry: of its columns but the rank as one line of text.

    They stand with a space between, and only the key, which is last, can hold one itself.
    """
    step, _, slot, sample, key, modality, source, tokens, truncated = entry
    line = f"{step} {slot} {tokens} {truncated} {sample} {modality} {source} {key}"
    return leaf_hash(line.encode())


def write_entries(file: Path, entries: Iterable[Entry]) -> None:
    """Write entries in groups of a fixed size. The same entries give the same bytes."""
    with pq.ParquetWriter(file, SCHEMA, compression="zstd", version="2.6") as writer:
        remaining = iter(entries)
        while rows := tuple(islice(remaining, _GROUP_ROWS)):
            writer.write_table(_table(rows), row_group_size=_GROUP_ROWS)


def read_entries(*files: Path) -> Iterator[Entry]:
    """Return the entries of files, one file after the other, a group at a time."""
    for file in files:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(_GROUP_ROWS):
                columns = [batch.column(name).to_pylist() for name in COLUMNS]
                yield from map(Entry._make, zip(*columns, strict=True))


def rows_of(file: Path) -> int:
    """Return how many entries a file holds."""
    with pq.ParquetFile(file) as table:
        count: int = table.metadata.num_rows
    return count


def _table(rows: Sequence[Entry]) -> Any:  # noqa: ANN401 - pyarrow is untyped
    columns = zip(*rows, strict=True)
    arrays = [
        pa.array(values, type=kind)
        for values, (kind, _) in zip(columns, COLUMNS.values(), strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)
