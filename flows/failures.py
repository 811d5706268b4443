"""Which failures of a retraining people know of: one that stays the same is told to them once.

A tick tries again what failed, because the fault may lie outside. Where it fails as before and
nothing has changed meanwhile, only the log says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from flows.watch import WORDS, look
from uni_moe.artifacts import Layout, read_json, sha256_file, write_json
from uni_moe.errors import UniMoeError
from uni_moe.records import sha256_text

_FILE = "failed.json"  # what was asked for -> what failed last


def is_known(home: Layout, asked: Mapping[str, object], error: UniMoeError) -> bool:
    """Say whether the same was asked for, failed so, and nothing has changed since."""
    return _known(home).get(_key(asked)) == _digest(home, error)


def remember(home: Layout, asked: Mapping[str, object], error: UniMoeError) -> None:
    """Remember that people are told of it; where the disk refuses, they will be told again."""
    with suppress(OSError):
        write_json(_file(home), {**_known(home), _key(asked): _digest(home, error)})


def forget(home: Layout, asked: Mapping[str, object]) -> None:
    """Forget how something failed that was asked for: it has worked."""
    known = _known(home)
    if known.pop(_key(asked), None) is not None:
        write_json(_file(home), known)


def _digest(home: Layout, error: UniMoeError) -> str:
    """Digest how something failed, and all that a person may change for it in the workspace."""
    told = [str(error.exit_code), error.what.partition("\n")[0]]
    for name in ("params.yaml", "dvc.yaml", "machine.yaml"):
        with suppress(OSError):
            told.append(sha256_file(home.root / name))
    with suppress(UniMoeError, OSError):  # params may be what fails
        told += look(home, tuple(WORDS)).values()
    return sha256_text("\n".join(told))


def _key(asked: Mapping[str, object]) -> str:
    return sha256_text(json.dumps(dict(asked), sort_keys=True, default=str))[:16]


def _known(home: Layout) -> dict[str, str]:
    file = _file(home)
    found: dict[str, str] = read_json(file) if file.is_file() else {}
    return found


def _file(home: Layout) -> Path:
    return home.state / _FILE
