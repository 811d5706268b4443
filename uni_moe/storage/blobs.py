"""The protocol of a store of folders, and the one that is a local folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from uni_moe.artifacts import files_of, whole_folder
from uni_moe.errors import LineageError


class BlobStore(Protocol):
    """Keeps folders under keys such as `ab12/model`. A folder is there whole or not at all."""

    def put_folder(self, key: str, folder: Path) -> None:
        """Keep a copy of a folder. A key is written once: the same key means the same content."""

    def get_folder(self, key: str) -> Path:
        """Return a local folder that holds what was kept under a key."""

    def has(self, key: str) -> bool:
        """Say whether a key is kept."""

    def keys(self) -> list[str]:
        """Return all keys in order."""


class LocalFolder:
    """A store that is a folder of this machine; a key is a path below it, two names long."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_folder(self, key: str, folder: Path) -> None:
        """Copy a folder to its place and check every byte.

        Raises:
            LineageError: the key holds other content already.
        """
        target = self._place(key)
        if self.has(key):
            if files_of(target) != files_of(folder):
                raise LineageError(
                    f"The store keeps other content under {key}.",
                    cause="a kept folder was changed, or two contents claim one identity.",
                    remedy=f"look at {target}; remove it if it is the damaged one.",
                )
            return
        with whole_folder(target) as draft:
            shutil.copytree(folder, draft, dirs_exist_ok=True)
            if files_of(draft) != files_of(folder):
                raise LineageError(
                    f"{folder} changed while it was copied to the store.",
                    cause="another process writes there, or the disk is failing.",
                    remedy="give the command again.",
                )

    def get_folder(self, key: str) -> Path:
        """Return the kept folder.

        Raises:
            LineageError: the key is not kept.
        """
        if not self.has(key):
            raise LineageError(
                f"The store at {self.root} keeps nothing under {key}.",
                cause="it was never registered here, or was removed.",
                remedy="look at what is there with `uni-moe models`.",
            )
        return self._place(key)

    def has(self, key: str) -> bool:
        """Say whether a key is kept."""
        return self._place(key).is_dir()

    def keys(self) -> list[str]:
        """Return all keys in order."""
        return sorted(
            path.relative_to(self.root).as_posix()
            for path in self.root.glob("*/*")
            if path.is_dir() and not path.name.startswith(".")
        )

    def _place(self, key: str) -> Path:
        return self.root / key
