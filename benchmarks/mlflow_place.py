"""MLflow in an environment of its own, which is made when it is asked for, and kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rounds import Burst
from uni_moe.errors import ConfigError, StageError

PACKAGES = ("mlflow-skinny==3.17.2", "SQLAlchemy==2.0.58", "alembic==1.20.1")
UI_PACKAGES = ("mlflow==3.17.2", *PACKAGES[1:])  # the same with its browser pages
NAME = "MLflow"
_PROGRAM = Path(__file__).with_name("mlflow_side.py")
_WHOLE = "whole"  # a file that says that everything was installed
_SAID = 400  # letters of what pip said


class MlflowProcess:
    """A process with one store."""

    def __init__(self, python: Path, file: Path) -> None:
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        self._python = python
        self._process = subprocess.Popen(
            [python, _PROGRAM, file],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def ask(self, word: str, **told: Any) -> dict[str, Any]:  # noqa: ANN401 - it becomes JSON
        """Return the answer to one line.

        Raises:
            StageError: the process ended.
        """
        process = self._process
        assert process.stdin is not None, "it is a pipe"
        assert process.stdout is not None, "it is a pipe"
        try:
            process.stdin.write(json.dumps({"word": word, **told}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise StageError(
                f"{NAME} gives no answer to {word!r}.",
                cause=f"its process ended with {process.wait()}.",
                remedy=f"look at what it says: {self._python} {_PROGRAM} FILE",
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@dataclass(frozen=True)
class MlflowPlace:
    """One thing that MLflow does, as a place of rounds."""

    process: MlflowProcess
    what: str
    names: tuple[str, ...] = (NAME,)
    absent: dict[str, str] = field(default_factory=dict)

    def burst(self, name: str, first: int, calls: int) -> Burst:
        """See Place."""
        del name
        return Burst(self.process.ask("burst", what=self.what, first=first, calls=calls)["seconds"])


@contextmanager
def mlflow(python: Path, file: Path, journal: str | None) -> Iterator[MlflowProcess]:
    """Start MLflow on a new store, whose journal may be chosen for it."""
    process = MlflowProcess(python, file)
    try:
        if journal is not None:
            process.ask("journal", mode=journal)
        yield process
    finally:
        process.close()


def mlflow_python(packages: Sequence[str] = PACKAGES) -> Path:
    """Return the interpreter of an environment with MLflow; it is made where there is none.

    Raises:
        ConfigError: it cannot be made.
    """
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = kept / "uni-moe" / "peers" / packages[0].replace("==", "-")
    python = folder / "bin" / "python"
    if not (folder / _WHOLE).is_file():
        print(f"making {folder} for {', '.join(packages)}", file=sys.stderr, flush=True)  # noqa: T201
        _do([sys.executable, "-m", "venv", "--clear", str(folder)])
        _do([str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", *packages])
        (folder / _WHOLE).write_text("\n".join(packages) + "\n", encoding="utf-8")
    return python


def _do(words: list[str]) -> None:
    free = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=free)
    if done.returncode != 0:
        raise ConfigError(
            f"There is no {NAME} to measure beside.",
            cause=f"`{' '.join(words[:6])} …` failed: {done.stderr.strip()[-_SAID:]}",
            remedy="let pip reach a package index; or name an interpreter that has "
            f"{' '.join(PACKAGES)} by --mlflow PYTHON.",
        )
