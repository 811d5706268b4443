"""Media in tar shards: each file once, named by its content; the same files give the same bytes.

Where a shard begins follows from the sample that it begins with: from its key and the size of its
first medium, whatever came before. So a sample that is edited, added or taken out changes its own
shard and leaves the others as they are, but for those with media that it shares; DVC keeps and
sends them once. Samples with several media make shards larger than the mean.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import tarfile
from collections.abc import Container, Sequence
from pathlib import Path

from uni_moe.errors import LineageError
from uni_moe.records import MediaRef

SHARD_BYTES = 32 * 2**20  # of a shard, in the mean
_MOST = 8  # times as many are cut off: one shard of three thousand
_ENTRY_BYTES = 1024  # what a file takes in a tar beside its own bytes, about
_ENDING = re.compile(r"\.[a-z0-9]{1,5}")
_Index = dict[str, tuple[int, int]]


class ShardWriter:
    """Packs files into `media-KEY.tar` of a folder, in the order in which they come.

    The files of one call stand in one shard, so a reference needs to name only one.
    """

    def __init__(self, folder: Path, *, mean_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._mean_bytes = folder, mean_bytes
        self._shards: dict[str, dict[str, str]] = {}  # name -> sha256 -> member
        self._last = ""  # the key that came last
        self._name = ""
        self._tar: tarfile.TarFile | None = None
        self._size_bytes = 0

    def add(
        self, key: str, files: Sequence[bytes], sha256: Sequence[str], names: Sequence[str]
    ) -> tuple[str, tuple[str, ...]]:
        """Pack files of a sample and return the shard's name and the members' names.

        Files that stand together in a shard already are not packed again.
        """
        for shard, members in self._shards.items():
            if all(sha in members for sha in sha256):
                return shard, tuple(members[sha] for sha in sha256)
        size_bytes = sum(len(data) + _ENTRY_BYTES for data in files)
        begins = key != self._last and begins_shard(key, size_bytes, self._mean_bytes)
        is_full = self._size_bytes + size_bytes > _MOST * self._mean_bytes
        if self._tar is None or begins or is_full:
            self._start(key)
        self._last = key
        members = self._shards[self._name]
        for data, sha, name in zip(files, sha256, names, strict=True):
            if sha not in members:
                members[sha] = sha + _ending(name)
                self._write(members[sha], data)
        return self._name, tuple(members[sha] for sha in sha256)

    def close(self) -> None:
        """Finish the last shard."""
        if self._tar is not None:
            self._tar.close()
            self._tar = None

    def _start(self, key: str) -> None:
        self.close()
        self._name = _shard_name(key, self._shards)
        path = self._folder / self._name
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - `close` closes it
        self._shards[self._name] = {}
        self._size_bytes = 0

    def _write(self, member: str, data: bytes) -> None:
        assert self._tar is not None
        entry = tarfile.TarInfo(member)  # its times and owners are 0
        entry.size = len(data)
        self._tar.addfile(entry, io.BytesIO(data))
        self._size_bytes += len(data) + _ENTRY_BYTES


class ShardReader:
    """Reads files from the shards of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._indices: dict[str, _Index] = {}

    def read(self, ref: MediaRef) -> list[bytes]:
        """Return the files of a reference.

        Raises:
            LineageError: the shard or a member is not there.
        """
        shard = ref.shard or ""
        try:
            if shard not in self._indices:
                self._indices[shard] = self._index(shard)
            spots = [self._indices[shard][member] for member in ref.members]
        except (OSError, tarfile.TarError, KeyError) as error:
            raise LineageError(
                f"{self._folder / shard} does not hold {', '.join(ref.members[:2])}.",
                cause=f"the manifest and the shards do not belong together ({error!r}).",
                remedy="remove the folder and run `dvc repro` (or `dvc checkout`).",
            ) from error
        with (self._folder / shard).open("rb") as stream:
            return [_slice(stream, *spot) for spot in spots]

    def _index(self, shard: str) -> _Index:
        with tarfile.open(self._folder / shard, "r:") as tar:
            return {item.name: (item.offset_data, item.size) for item in tar if item.isreg()}


def _slice(stream: io.BufferedReader, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return stream.read(size)


def begins_shard(key: str, size_bytes: int, mean_bytes: int) -> bool:
    """Say whether a shard begins with a sample: with one in so many that shards have their mean."""
    draw = int.from_bytes(hashlib.sha256(key.encode("utf-8")).digest()[:8], "big")
    return draw * mean_bytes < size_bytes << 64


def _shard_name(key: str, taken: Container[str]) -> str:
    """Return a shard's name by the key that it begins with; it is the same whatever came before."""
    stem = f"media-{hashlib.sha256(key.encode('utf-8')).hexdigest()[:12]}"
    names = (f"{stem}{f'-{number}' if number else ''}.tar" for number in itertools.count())
    return next(name for name in names if name not in taken)


def _ending(name: str) -> str:
    """Return a name's ending, where it is a harmless one."""
    ending = Path(name.rpartition("/")[2]).suffix.lower()
    return ending if _ENDING.fullmatch(ending) else ""
