"""Reading inside one folder: no path leaves it, no link is followed, no tar member escapes."""

from __future__ import annotations

import functools
import tarfile
from pathlib import Path, PurePosixPath

from uni_moe.data.sources.base import Loader
from uni_moe.data.sources.problems import Problem

MAX_FILE_BYTES = 512 * 2**20


def file_inside(root: Path, name: str, *, missing: str = "missing_media") -> Path | Problem:
    """Return the file `name` inside `root`, or the problem that keeps it from being read."""
    if not is_plain(name):
        return Problem("unsafe_path", f"{name!r} is absolute or leaves its folder")
    path = root.resolve() / name
    try:
        if path.resolve() != path:
            return Problem("unsafe_path", f"{name!r} is or passes a link")
        if path.is_file():
            return path
    except OSError as error:  # a name that no file system takes, a folder that may not be read
        return Problem(missing, f"{name[:80]!r} cannot be read: {error.strerror}")
    return Problem(missing, f"there is no file {name!r} in {root.name}")


def _too_large(name: str, size: int) -> Problem | None:
    if size <= MAX_FILE_BYTES:
        return None
    return Problem("too_large", f"{name!r} has {size} bytes")


def is_plain(name: str) -> bool:
    """Tell whether a name is relative and stays where it is."""
    path = PurePosixPath(name)
    return (
        bool(name)
        and "\0" not in name
        and "\\" not in name
        and not path.is_absolute()
        and ".." not in path.parts
        and str(path) != "."
    )


def file_loader(path: Path) -> Loader | Problem:
    """Return what reads a whole file when it is called, or the problem that it is too large."""
    return _too_large(path.name, path.stat().st_size) or path.read_bytes


def member_loader(shard: Path, member: str) -> Loader | Problem:
    """Return what reads one regular file of a tar, or the problem that keeps it from being read."""
    try:
        state = shard.stat()
        index = _index(shard, (state.st_mtime_ns, state.st_size))
    except (OSError, tarfile.TarError) as error:
        return Problem("missing_shard", f"{shard.name} is no whole tar: {error}")
    if member not in index:
        return Problem("missing_member", f"{shard.name} has no file {member!r}")
    offset, size = index[member]
    return _too_large(member, size) or functools.partial(_read, shard, offset, size)


@functools.lru_cache(maxsize=1024)
def _index(shard: Path, state: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Return name -> (offset, size) of a tar's regular files. Links and escaping names are none.

    `state` is the file's time and size: a shard that was replaced is indexed again.
    """
    del state
    with tarfile.open(shard, "r:") as tar:
        return {
            item.name: (item.offset_data, item.size)
            for item in tar
            if item.isreg() and not item.issparse() and is_plain(item.name)
        }


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)
