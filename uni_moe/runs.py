"""A run: one execution of one stage, recorded live in a folder of its own.

The folder holds `run.json` (who, when, where, environment, how it ended), `events.jsonl`,
`metrics.jsonl`, `heartbeat.jsonl`, of a stage `output.txt` (what it said), of a mixture
`routing.jsonl`, and in `made/` the cards of what it made. A run whose heartbeat stopped without an
end has died.
"""

from __future__ import annotations

import json
import os
import platform
import pwd
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from uni_moe.artifacts import Layout, write_json
from uni_moe.records import Card

RECORD, EVENTS, METRICS = "run.json", "events.jsonl", "metrics.jsonl"
HEARTBEATS, ROUTING = "heartbeat.jsonl", "routing.jsonl"
MADE = "made"  # the folder of cards
HEARTBEAT_S = 15.0
# What computes with samples, weights and scores: another version may give other bits. What tests
# alone install is none of them: its coming would look like another environment.
_PACKAGES = (
    *("torch", "triton", "transformers", "peft", "deepspeed", "numpy"),
    *("safetensors", "tokenizers", "sentencepiece"),
    *("av", "pillow", "soundfile", "soxr", "espeakng-loader"),
    *("pyarrow", "pandas", "great-expectations", "matplotlib"),
)


@dataclass
class Run:
    """One execution of a stage. Everything told to it, by any thread, is on disk at once."""

    id: str
    stage: str
    folder: Path
    record: dict[str, Any]
    _streams: dict[str, TextIO] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def event(self, event: str, **facts: Any) -> None:  # noqa: ANN401 - facts are JSON
        """Record that something happened."""
        self._append(EVENTS, {"time": _now(), "event": event, **facts})

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers of one optimizer step."""
        self._append(METRICS, {"time": _now(), "step": step, **values})

    def routing(self, step: int, layers: Mapping[str, Any]) -> None:
        """Record what the routers of one optimizer step did: layer -> modality -> numbers."""
        self._append(ROUTING, {"step": step, "layers": layers})

    def artifact(self, name: str, card_id: str) -> None:
        """Record that this run made an artifact."""
        self.record["artifacts"][name] = card_id

    def made(self, name: str, card: Card) -> None:
        """Record that this run made an artifact, and keep its card: another may take its place."""
        self.artifact(name, card.id)
        told = {"name": name, "card": card.to_json()}
        write_json(self.folder / MADE / f"{card.id}.json", told)

    def read(self, name: str, version: str, *, namespace: str | None = None) -> None:
        """Record a dataset that this run read and that is nobody's parent by its card.

        Without a namespace it is one of the workspace.
        """
        one = {"name": name, "version": version}
        told = one if namespace is None else {"namespace": namespace, **one}
        self.record.setdefault("read", []).append(told)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with self._lock:
            if name not in self._streams:
                self._streams[name] = (self.folder / name).open("a", encoding="utf-8")
            file = self._streams[name]
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()

    def close(self) -> None:
        """Close the run's files."""
        for file in self._streams.values():
            file.close()


class _Silent(Run):
    """A run that another process records."""

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        """Leave it to the process that records."""

    def made(self, name: str, card: Card) -> None:
        """Leave it to the process that records."""


def follow_run(layout: Layout, stage: str) -> Run:
    """Return the run of a process that works beside the one that records."""
    return _Silent("", stage, layout.runs, {"artifacts": {}})


@contextmanager
def start_run(
    layout: Layout,
    stage: str,
    params: Mapping[str, Any],
    *,
    reason: str | None = None,
    flow_run: str | None = None,
) -> Iterator[Run]:
    """Open a run folder for a stage, beat while it works, and record how it ended.

    Why and in which flow run are told by the environment, which a flow sets for its stages, unless
    they are given.
    """
    started = datetime.now(UTC)
    run_id = f"{started:%Y%m%dT%H%M%S}-{stage.replace('@', '-')}-{secrets.token_hex(3)}"
    folder = layout.runs / run_id
    folder.mkdir(parents=True)
    record: dict[str, Any] = {
        "id": run_id,
        "stage": stage,
        "status": "running",
        "started": started.isoformat(),
        "user": user(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "pid_namespace": pid_namespace(),
        "reason": reason or os.environ.get("UNI_MOE_REASON"),
        "flow_run": flow_run or os.environ.get("UNI_MOE_FLOW_RUN"),
        "commit": commit(),
        "environment": environment(),
        "params": dict(params),
        "artifacts": {},
    }
    write_json(folder / RECORD, record)
    run = Run(run_id, stage, folder, record)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(folder, stop), daemon=True)
    beat.start()
    begin = time.monotonic()
    try:
        yield run
        record["status"] = "done"
    except BaseException as error:
        record["status"] = "failed"
        record["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        stop.set()
        beat.join(timeout=1)
        record["ended"] = _now()
        record["duration_s"] = round(time.monotonic() - begin, 3)
        run.close()
        write_json(folder / RECORD, record)


def _beat(folder: Path, stop: threading.Event) -> None:
    with (folder / HEARTBEATS).open("a", encoding="utf-8") as file:
        while True:
            file.write(json.dumps({"time": _now()}) + "\n")
            file.flush()
            if stop.wait(HEARTBEAT_S):
                return


def _now() -> str:
    return datetime.now(UTC).isoformat()


def pid_namespace() -> str | None:
    """Return whose process ids these are: those of a container are its own. None without Linux."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def user() -> str:
    """Return who runs this process, as the operating system knows; variables say nothing."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may give a number that has no name
        return f"uid {os.getuid()}"


def commit() -> str | None:
    """Return the commit of the code that runs, None outside a checkout or without git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def environment() -> dict[str, Any]:
    """Return Python, the packages that compute, and the machine's name for itself."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": sys.version.split()[0],
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": versions,
    }
