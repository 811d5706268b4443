"""The family tree of errors: each says what happened, why, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.EFBIG)
_SAYS_FULL = ("No space left on device", "Disk quota exceeded", "disk is full")


class UniMoeError(Exception):
    """An error a person can act on. The message has three parts: what, cause, remedy."""

    exit_code = 1

    def __init__(self, what: str, *, cause: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        """Return the three lines."""
        return f"{self.what}\n  cause:  {self.cause}\n  remedy: {self.remedy}"


class ConfigError(UniMoeError):
    """params.yaml, a recipe or a command line says something that cannot be followed."""

    exit_code = 2


class DataError(UniMoeError):
    """A source, a sample or a piece of media cannot be used as it is."""

    exit_code = 3


class ContractError(UniMoeError):
    """A table breaks its contract in a way that stops the road."""

    exit_code = 4


class LineageError(UniMoeError):
    """Two artifacts do not belong together, or an artifact is not what its card says."""

    exit_code = 5


class StageError(UniMoeError):
    """A stage could not run to its end."""

    exit_code = 6


class GateError(UniMoeError):
    """A model may not become the champion as things stand."""

    exit_code = 7


class StoreError(UniMoeError):
    """A store cannot be reached, refuses us, or has no room."""

    exit_code = 8


def is_full(error: BaseException) -> bool:
    """Return whether an error says that a disk is full, in a number or in a library's words."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(words in str(error) for words in _SAYS_FULL)


def of_disk(error: BaseException) -> StageError | None:
    """Return what a person is told of a disk that is full or refuses; None of other errors."""
    if is_full(error):
        cause = "the disk is full."
    elif isinstance(error, OSError) and error.errno in _REFUSED:
        cause = "the disk or its file system refuses it."
    else:
        return None
    return StageError(
        f"A file could not be written or read: {error}",
        cause=cause,
        remedy="make room or mend it, then give the same command again: what was whole before is "
        "as it was, and a training goes on from its last state.",
    )


def bullets(problems: Sequence[str], *, most: int = 20) -> str:
    """Join problems, one a line, and say how many more there are."""
    shown = [f"\n    - {problem}" for problem in problems[:most]]
    rest = len(problems) - most
    return "".join(shown) + (f"\n    … and {rest} more" if rest > 0 else "")


@contextmanager
def telling_of(path: Path, remedy: str = "take the one saved with the weights.") -> Iterator[None]:
    """Say which file asked for a network that cannot be built.

    Raises:
        ConfigError: transformers or torch refused what the block made of the file.
    """
    try:
        yield
    except UniMoeError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{path} describes no network: {str(error).strip().partition(chr(10))[0]}",
            cause="a value in it is of another kind or size than it can be.",
            remedy=remedy,
        ) from error
