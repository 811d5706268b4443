"""The family tree of errors: each says what happened, why, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Sequence

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = {
    errno.EACCES: "permissions forbid it",
    errno.EPERM: "permissions forbid it",
    errno.EROFS: "it is there for reading alone",
    errno.EIO: "the device fails",
    errno.EFBIG: "it takes no file of this size",
}
_AGAIN = (
    "give the same command again: what was whole before is as it was, and a training goes on from "
    "its last whole state."
)
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


class UnknownError(LineageError):
    """A name on the command line names nothing, or several things."""

    exit_code = 2


class StageError(UniMoeError):
    """A stage could not run to its end."""

    exit_code = 6


class GateError(UniMoeError):
    """A model may not become the champion as things stand."""

    exit_code = 7


class StoreError(UniMoeError):
    """A store cannot be reached or refuses us, or it or a disk has no room."""

    exit_code = 8


class UnreachableError(StoreError):
    """A store does not answer, or is not mounted: the one fault that may go by itself."""


def is_full(error: BaseException) -> bool:
    """Return whether an error says that a disk is full, in a number or in a library's words."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(words in str(error) for words in _SAYS_FULL)


def full_disk(what: str) -> StoreError:
    """Return what a person is told wherever a disk is full; `what` says what came to nothing."""
    return StoreError(
        what,
        cause="the disk is full.",
        remedy="free some space (`uni-moe disk` says what takes it, `uni-moe gc` frees what may "
        f"go), then {_AGAIN}",
    )


def unwritten(error: BaseException, what: str) -> StoreError | StageError:
    """Return what a person is told of a file that a disk did not take, or did not give."""
    if is_full(error):
        return full_disk(what)
    why = _REFUSED.get(error.errno or 0) if isinstance(error, OSError) else None
    return StageError(
        what,
        cause=f"the disk or its file system refuses it{f': {why}' if why else ''}.",
        remedy=f"mend that, or name another file, then {_AGAIN}",
    )


def of_disk(error: BaseException) -> StoreError | StageError | None:
    """Return what a person is told of a disk that is full or refuses; None of other errors."""
    if is_full(error) or (isinstance(error, OSError) and error.errno in _REFUSED):
        return unwritten(error, f"A file could not be written or read: {error}")
    return None


def bullets(problems: Sequence[str], *, most: int = 20) -> str:
    """Join problems, one a line, and say how many more there are."""
    shown = [f"\n    - {problem}" for problem in problems[:most]]
    rest = len(problems) - most
    return "".join(shown) + (f"\n    … and {rest} more" if rest > 0 else "")
