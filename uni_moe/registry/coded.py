"""Columns of few different texts, read as places in a list of them: no text is made twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq


def read_coded(file: Path, names: Sequence[str], texts: Sequence[str]) -> Any:  # noqa: ANN401 - pyarrow is untyped
    """Read columns of a table, these texts among them coded.

    Raises:
        OSError, ValueError, KeyError: it cannot be read, or lacks a column.
    """
    with pq.ParquetFile(file, read_dictionary=list(texts)) as table:
        return table.read(columns=list(names)).unify_dictionaries().combine_chunks()


def coded(table: Any, name: str) -> tuple[Any, list[str]]:  # noqa: ANN401 - pyarrow is untyped
    """Return a coded column: each row's place, and the texts. `to_numpy` would import pandas."""
    column = table.column(name)
    if not len(column):
        return np.zeros(0, np.int32), []
    chunk = column.chunk(0)
    places = np.frombuffer(chunk.indices.buffers()[1], np.int32)[: len(column)]
    return places, chunk.dictionary.to_pylist()
