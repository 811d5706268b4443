"""What the contract accepted and what it refused, as two tables of one artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uni_moe.data.manifest import SCHEMA

ACCEPTED = "accepted.parquet"
QUARANTINE = "quarantine.parquet"

Row = Mapping[str, Any]

_QUARANTINE_SCHEMA = SCHEMA.append(
    pa.field("reasons", pa.string(), metadata={"doc": "why it was refused, joined by commas"})
)


def write_accepted(folder: Path, rows: Sequence[Row]) -> None:
    """Write accepted rows of a manifest as they are."""
    _write(folder / ACCEPTED, rows, SCHEMA)


def write_quarantine(folder: Path, rows: Sequence[Row], reasons: Sequence[Sequence[str]]) -> None:
    """Write refused rows, each with all its reasons."""
    told = [{**row, "reasons": ",".join(codes)} for row, codes in zip(rows, reasons, strict=True)]
    _write(folder / QUARANTINE, told, _QUARANTINE_SCHEMA)


def read_accepted(folder: Path) -> list[dict[str, Any]]:
    """Return the accepted rows, sorted by key."""
    rows: list[dict[str, Any]] = pq.read_table(folder / ACCEPTED).to_pylist()
    return rows


def read_quarantine(folder: Path) -> list[dict[str, Any]]:
    """Return the refused rows, sorted by key; `reasons` holds codes joined by commas."""
    rows: list[dict[str, Any]] = pq.read_table(folder / QUARANTINE).to_pylist()
    return rows


def _write(path: Path, rows: Sequence[Row], schema: Any) -> None:  # noqa: ANN401 - pyarrow is untyped
    arrays = [pa.array([row[item.name] for row in rows], type=item.type) for item in schema]
    table = pa.Table.from_arrays(arrays, schema=schema)
    pq.write_table(table, path, compression="zstd", version="2.6")
