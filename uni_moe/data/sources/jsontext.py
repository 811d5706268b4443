"""JSON that strangers wrote: whole files and single values, read without trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from uni_moe.data.sources.problems import Problem
from uni_moe.errors import DataError


def read_utf8(path: Path) -> str:
    """Read a text file.

    Raises:
        DataError: there is no such file, or it is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}.",
            cause="the source's `path` in params.yaml points at nothing that can be opened.",
            remedy="correct `path`, or put the data there.",
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: byte {error.start} cannot be read.",
            cause="the file was saved in another encoding, or it is not text.",
            remedy="save it as UTF-8 (`iconv -t UTF-8`).",
        ) from error


def parse(text: str) -> Any:  # noqa: ANN401 - JSON has any shape
    """Parse one JSON text.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def object_or_problem(value: object) -> Problem | None:
    """Return why a parsed value cannot be a record: no object, or text that UTF-8 cannot hold."""
    if not isinstance(value, dict):
        return Problem("not_an_object", f"the record is a {type(value).__name__}")
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        return Problem("broken_json", f"half of a character pair stands alone: {error.reason}")
    return None
