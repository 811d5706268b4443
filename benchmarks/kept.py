"""Files of answers: all questions of one machine, written so that differences can be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uni_moe.errors import ConfigError


def add_to(file: Path, question: str, answer: Mapping[str, Any]) -> None:
    """Put a question's answer into a file of answers; those of other questions stay.

    Raises:
        ConfigError: the file holds something else.
    """
    try:
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        whole = {**known, question: answer}
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{file} holds no answers of benchmarks.",
            cause=f"it cannot be read as a JSON object: {error}.",
            remedy="name another file with --json, or remove this one.",
        ) from error
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.draft")
    draft.write_text(_lines(whole) + "\n", encoding="utf-8")
    draft.replace(file)


def _lines(value: Any, indent: int = 0) -> str:  # noqa: ANN401 - any JSON value
    """Write JSON with one line per row of numbers, so that differences can be read."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(flat) + indent <= 100:
        return flat
    if isinstance(value, list) and not any(isinstance(one, dict | list) for one in value):
        return flat
    inside = "  " * (indent + 1)
    if isinstance(value, dict):
        parts = [f"{json.dumps(name)}: {_lines(one, indent + 1)}" for name, one in value.items()]
    else:
        parts = [_lines(one, indent + 1) for one in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    body = f",\n{inside}".join(parts)
    return f"{opening}\n{inside}{body}\n{'  ' * indent}{closing}"
