"""The keeper of the process that answers: one for the whole server, questions in turn.

No model lies in the server. Uploads are held in memory until their turn comes, then lie in a folder
that only this user can open, under names of ours, until they are answered.
"""

from __future__ import annotations

import atexit
import json
import queue
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from dashboard.words import lasting
from uni_moe.errors import StageError, UniMoeError

MOST_WAITING = 8
LIMIT_S = 300.0  # for one answer of one model, the loading included
FORGOTTEN_S = 60.0  # after which a question that nobody looks at is dropped
_LOOK_S = 0.2
_SAID_LAST = 2_000  # letters of what a dead worker said last
_AGAIN = "ask again: a new worker is started."


@dataclass(frozen=True)
class Upload:
    """A file that a person gives: its kind, what they call it, and its bytes."""

    kind: str
    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Question:
    """What is asked, and of whom: what a person calls a model, and where it lies."""

    text: str
    models: Mapping[str, Path]
    uploads: Sequence[Upload] = ()
    max_new_tokens: int = 32


class Job:
    """A question on its way. `answers` and `error` are there when it is `over`."""

    def __init__(self, question: Question) -> None:
        self.question: Question | None = question  # dropped with its uploads when it is over
        self.id = uuid.uuid4().hex
        self.doing = "waiting"
        self.answers: dict[str, dict[str, Any]] = {}
        self.error: UniMoeError | None = None
        self.over = False
        self._stopped = False
        self._seen = time.monotonic()

    def seen(self) -> None:
        """Say that somebody still wants it."""
        self._seen = time.monotonic()

    def stop(self) -> None:
        """Give it up."""
        self._stopped = True

    def is_stopped(self) -> bool:
        """Say whether nobody wants it any more."""
        return self._stopped or time.monotonic() - self._seen > FORGOTTEN_S

    def end(self, error: UniMoeError | None = None) -> None:
        """Let it be over."""
        self.error, self.question, self.over = error, None, True


class Keeper:
    """Asks the worker, one question after the other; starts it where it is not."""

    def __init__(self, command: Sequence[str], *, limit_s: float = LIMIT_S) -> None:
        self._command, self._limit_s = list(command), limit_s
        self._jobs: list[Job] = []  # the first one is at work
        self._lock = threading.Condition()
        self._worker: _Worker | None = None
        threading.Thread(target=self._work, daemon=True).start()
        atexit.register(self.end)

    def submit(self, question: Question) -> Job:
        """Put a question into the queue.

        Raises:
            StageError: too many wait.
        """
        with self._lock:
            for gone in [one for one in self._jobs[1:] if one.is_stopped()]:  # the first is at work
                self._jobs.remove(gone)
                gone.end(_stopped())
            if len(self._jobs) >= MOST_WAITING:
                raise StageError(
                    f"{len(self._jobs)} questions wait already.",
                    cause="one process answers them, one after the other.",
                    remedy="ask again in a moment.",
                )
            job = Job(question)
            self._jobs.append(job)
            self._lock.notify()
            return job

    def ahead(self, job: Job) -> int:
        """Return how many questions come before one."""
        with self._lock:
            return self._jobs.index(job) if job in self._jobs else 0

    def pid(self) -> int | None:
        """Return the worker's process, None where there is none."""
        worker = self._worker
        return worker.process.pid if worker is not None and worker.is_alive() else None

    def end(self) -> None:
        """End the worker."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._jobs:
                    self._lock.wait()
                job = self._jobs[0]
            error: UniMoeError | None = None
            try:
                self._answer(job)
            except UniMoeError as told:
                error = told
            except OSError as trouble:  # the disk is full, or no process can be started
                error = _cannot(trouble)
            except Exception as mistake:  # noqa: BLE001 - a mistake of ours must not end all asking
                self.end()
                error = _unexpected(mistake)
            with self._lock:
                job.end(error)
                self._jobs.remove(job)

    def _answer(self, job: Job) -> None:
        question = job.question
        assert question is not None, "an answered question is out of the queue"
        for label, model in question.models.items():
            if job.is_stopped():
                raise _stopped()
            with _placed(question.uploads) as files:
                request = {
                    "id": job.id,
                    "model": str(model),
                    "question": question.text,
                    "max_new_tokens": question.max_new_tokens,
                    "files": files,
                }
                job.answers[label] = self._ask(request, job, label)

    def _ask(self, request: Mapping[str, Any], job: Job, label: str) -> dict[str, Any]:
        """Give the worker a question and wait; whatever goes wrong, the next one finds a worker."""
        if self._worker is None or not self._worker.is_alive():
            self.end()
            job.doing = "starting the worker"
            self._worker = _Worker(self._command)
        worker = self._worker
        try:
            worker.send(request)
            for message in worker.messages(self._limit_s, job):
                if "answer" in message:
                    answer: dict[str, Any] = message["answer"]
                    return answer
                if "error" in message:
                    raise _told(message["error"])
                job.doing = f"{label}: {message['doing']}"
        except _GoneError:
            self.end()
            raise
        raise AssertionError("messages end with an answer or an error")


class _GoneError(StageError):
    """The worker is gone or must go."""


class _Worker:
    """The process, and what it says."""

    def __init__(self, command: Sequence[str]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C is the server's
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def send(self, request: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise self._dead() from None

    def messages(self, limit_s: float, job: Job) -> Iterator[dict[str, Any]]:
        """Give what it says to a question; end where it is dead, late, or not wanted any more."""
        until = time.monotonic() + limit_s
        while True:
            try:
                line = self._lines.get(timeout=_LOOK_S)
            except queue.Empty:
                if job.is_stopped():
                    raise _stopped() from None
                if time.monotonic() > until:
                    raise _late(limit_s) from None
                continue
            if line is None:
                raise self._dead()
            message = _message(line)
            if message["id"] == job.id:
                yield message

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._errors.close()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _dead(self) -> _GoneError:
        code = self.process.wait()
        self._errors.seek(max(0, self._errors.seek(0, 2) - _SAID_LAST))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"code {code}"
        memory = "; often the machine ran out of memory" if code == -9 else ""
        return _GoneError(
            f"The worker that answers ended by {how}.",
            cause=(lines[-1] if lines else "it said nothing") + memory,
            remedy=_AGAIN,
        )


@contextmanager
def _placed(uploads: Sequence[Upload]) -> Iterator[list[dict[str, str]]]:
    """Let uploads lie in a private folder as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="uni-moe-ask-") as folder:
        told = []
        for number, upload in enumerate(uploads):
            path = Path(folder) / str(number)  # what a person calls a file is never a path
            path.write_bytes(upload.data)
            told.append({"kind": upload.kind, "path": str(path), "name": upload.name})
        yield told


def _stopped() -> _GoneError:
    return _GoneError(
        "The question was given up.",
        cause="you stopped it, or its page was closed.",
        remedy=_AGAIN,
    )


def _late(limit_s: float) -> _GoneError:
    return _GoneError(
        f"There was no answer within {lasting(limit_s)}.",
        cause="the model, the files or the answer are too large for this machine.",
        remedy="ask for fewer tokens or give smaller files; `uni-moe ask` waits without limit.",
    )


def _cannot(trouble: OSError) -> StageError:
    return StageError(
        f"The question could not be passed on: {trouble}",
        cause="the disk for temporary files is full, or no process can be started.",
        remedy="mend that, then ask again.",
    )


def _message(line: str) -> dict[str, Any]:
    """Return what a line of the worker says to which question."""
    try:
        told = json.loads(line)
    except ValueError:
        told = None
    if not isinstance(told, dict) or "id" not in told:
        raise _GoneError(
            f"The worker said what cannot be understood: {line.strip()[:_SAID_LAST]}",
            cause="something in it prints where only its answers belong.",
            remedy=_AGAIN,
        )
    return told


def _unexpected(mistake: Exception) -> StageError:
    return StageError(
        f"The question failed in a way that nobody foresaw: {type(mistake).__name__}: {mistake}",
        cause="a mistake in this program.",
        remedy=_AGAIN,
    )


def _told(error: Mapping[str, str]) -> UniMoeError:
    return UniMoeError(error["what"], cause=error["cause"], remedy=error["remedy"])
