"""What a stage says, kept in its run's folder while a person reads it.

It is the text of this process and its threads; what a library's own C code writes goes past it. A
bar that is drawn over itself again and again is kept every few seconds, as a line.
"""

from __future__ import annotations

import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import RawIOBase
from pathlib import Path
from typing import IO, Any, TextIO, cast

from uni_moe.errors import UniMoeError

OUTPUT = "output.txt"
DRAWN_S = 10.0
_MOVES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # of a terminal's cursor, and its colours
_END = re.compile(r"([\r\n])")


@contextmanager
def keep_output(folder: Path) -> Iterator[None]:
    """Keep what is said to both streams in a run's folder, an error that ends it as well.

    Where it can be kept no more (a full disk), that is said once, and the stage goes on.
    """
    with (folder / OUTPUT).open("ab", buffering=0) as file:
        book = _Book(file)
        out, errors = _Heard(sys.stdout, book), _Heard(sys.stderr, book)
        with redirect_stdout(cast(IO[str], out)), redirect_stderr(cast(IO[str], errors)):
            try:
                yield
            except BaseException as error:
                errors.write_down(_told(error) + "\n")
                raise
            finally:
                out.end()
                errors.end()


def _told(error: BaseException) -> str:
    if isinstance(error, UniMoeError):
        return f"error: {error}"
    return "".join(traceback.format_exception(error))


class _Book:
    """The file, without a buffer that a full disk would leave to its end."""

    def __init__(self, file: RawIOBase) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._trouble: OSError | None = None

    def add(self, text: str) -> None:
        """Add whole lines.

        Raises:
            OSError: the first time that they cannot be kept.
        """
        with self._lock:
            if self._trouble is not None:
                return
            try:
                self._file.write(_MOVES.sub("", text).encode(errors="replace"))
            except OSError as error:
                self._trouble = error
                raise


class _Heard:
    """A stream that a book listens to; in all else it is the stream."""

    def __init__(self, stream: TextIO, book: _Book) -> None:
        self._stream = stream
        self._book = book
        self._open = ""  # of a line that has not ended
        self._drawn = -DRAWN_S
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Say it, and keep the lines that end with it."""
        count = self._stream.write(text)
        with self._lock:
            lines = self._ended(text)
        if lines:
            self._keep(lines)
        return count

    def write_down(self, lines: str) -> None:
        """Keep lines that somebody else says, behind what was said so far."""
        self.end()
        self._keep(lines)

    def writelines(self, lines: list[str]) -> None:
        """Say several."""
        self.write("".join(lines))

    def end(self) -> None:
        """Keep what no line's end came after."""
        if self._open:
            self._keep(self._open + "\n")
            self._open = ""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._stream, name)

    def _ended(self, text: str) -> str:
        lines = []
        for part in _END.split(text):
            if part == "\n":
                lines.append(self._open + "\n")
            elif part == "\r":
                now = time.monotonic()
                if self._open.strip() and now - self._drawn >= DRAWN_S:
                    self._drawn = now
                    lines.append(self._open + "\n")
            else:
                self._open += part
                continue
            self._open = ""
        return "".join(lines)

    def _keep(self, lines: str) -> None:
        try:
            self._book.add(lines)
        except OSError as error:
            self._stream.write(f"what is said from here on is not kept in {OUTPUT}: {error}\n")
