"""Holds the objects that DVC keeps in a remote to their names, which are hashes of their bytes.

DVC never sends again what a remote has by name, so an object that was spoilt there stays spoilt
until it is removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from uni_moe.storage.remote import DATA, Remote, credentials_of

_FILES, _FOLDER = "files/md5/", ".dir"  # a folder's list is an object too


def remove_spoilt(root: Path, remote: Remote) -> list[str]:
    """Read every object of DVC's; remove those that are not what their names say; return these.

    Raises:
        StoreError: the remote cannot be reached or refuses.
    """
    if remote.is_s3:
        from uni_moe.storage.s3 import S3Bucket

        bucket = S3Bucket(remote, credentials_of(root), DATA)
        return _removed(bucket.objects(_FILES), bucket.md5, bucket.remove)
    folder = Path(remote.url) / DATA
    files = (path for path in folder.glob(f"{_FILES}*/*") if path.is_file())
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    return _removed(names, lambda name: _md5(folder / name), lambda name: (folder / name).unlink())


def _removed(
    names: list[str], md5: Callable[[str], str | None], remove: Callable[[str], None]
) -> list[str]:
    spoilt = [name for name in names if md5(name) != _said(name)]
    for name in spoilt:
        remove(name)
    return spoilt


def _said(name: str) -> str:
    """Return the md5 that an object's name says."""
    return name.removeprefix(_FILES).removesuffix(_FOLDER).replace("/", "")


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
