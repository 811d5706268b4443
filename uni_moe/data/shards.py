"""Media in tar shards: each file once, named by its content; the same files give the same bytes."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

from uni_moe.errors import LineageError
from uni_moe.records import MediaRef

SHARD_BYTES = 64 * 2**20
_ENDING = re.compile(r"\.[a-z0-9]{1,5}")
_Index = dict[str, tuple[int, int]]


class ShardWriter:
    """Packs files into `media-NNN.tar` of a folder, in the order in which they come.

    The files of one call stand in one shard, so a reference needs to name only one.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
        self._shards: list[dict[str, str]] = []  # per shard: sha256 -> member
        self._tar: tarfile.TarFile | None = None
        self._size_bytes = 0

    def add(
        self, files: Sequence[bytes], sha256: Sequence[str], names: Sequence[str]
    ) -> tuple[str, tuple[str, ...]]:
        """Pack files and return the shard's name and the members' names.

        Files that stand together in a shard already are not packed again.
        """
        for number, members in enumerate(self._shards):
            if all(sha in members for sha in sha256):
                return _shard_name(number), tuple(members[sha] for sha in sha256)
        if self._tar is None or self._size_bytes + sum(map(len, files)) > self._limit_bytes:
            self._start()
        members = self._shards[-1]
        for data, sha, name in zip(files, sha256, names, strict=True):
            if sha not in members:
                members[sha] = sha + _ending(name)
                self._write(members[sha], data)
        return _shard_name(len(self._shards) - 1), tuple(members[sha] for sha in sha256)

    def close(self) -> None:
        """Finish the last shard."""
        if self._tar is not None:
            self._tar.close()
            self._tar = None

    def _start(self) -> None:
        self.close()
        path = self._folder / _shard_name(len(self._shards))
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - `close` closes it
        self._shards.append({})
        self._size_bytes = 0

    def _write(self, member: str, data: bytes) -> None:
        assert self._tar is not None
        entry = tarfile.TarInfo(member)  # its times and owners are 0
        entry.size = len(data)
        self._tar.addfile(entry, io.BytesIO(data))
        self._size_bytes += len(data) + 1024


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


def _shard_name(number: int) -> str:
    return f"media-{number:03d}.tar"


def _ending(name: str) -> str:
    """Return a name's ending, where it is a harmless one."""
    ending = Path(name.rpartition("/")[2]).suffix.lower()
    return ending if _ENDING.fullmatch(ending) else ""
