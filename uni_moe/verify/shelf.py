"""Where the bytes of an artifact still are: the store, artifacts/, or DVC's cache.

The cache is read by its layout: a folder is a list of files, each kept under its md5, so it is
found by the card in it, whichever `dvc.lock` named it once.
"""

from __future__ import annotations

import configparser
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from uni_moe.artifacts import CARD, Layout, read_json, sha256_file
from uni_moe.records import Card
from uni_moe.storage.credentials import LOCAL_CONFIG
from uni_moe.verify.family import Member

_OWN = (CARD, ".gitignore")  # what a card does not list


@dataclass(frozen=True)
class Copy:
    """A kept artifact: where it is, in words, and the path of each of its files' bytes."""

    where: str
    files: Mapping[str, Path]

    def wrong(self, card: Card) -> list[str]:
        """Read every byte; return what is missing, added, or not as the card says."""
        found = {name: _hash(path) for name, path in self.files.items() if name not in _OWN}
        names = sorted({*found, *card.files})
        return [name for name in names if found.get(name) != card.files.get(name)]

    def write(self, target: Path) -> None:
        """Lay the files at a new place; bytes are shared where the file system can link."""
        for name, path in self.files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            _link(path, target / name)


class Shelf:
    """Everything that a workspace keeps of artifacts that were made in it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def copy_of(self, one: Member, model: str) -> Copy | None:
        """Return a kept copy of an artifact of a model's family, None where its bytes are gone."""
        store = self._layout.store / model
        own = self._layout.store / one.card.id / "model"  # of a model that this one was tuned from
        reports = sorted(store.glob("report-*"))
        places = (store / "model", own, *reports, self._layout.root / one.name)
        for folder in places:
            if _id_in(folder / CARD) == one.card.id:
                return Copy(self._layout.name_of(folder), _files(folder))
        return self._cached.get(one.card.id)

    @cached_property
    def _cached(self) -> dict[str, Copy]:
        cache = cache_folder(self._layout.root)
        found = {}
        for listing in sorted(cache.glob("[0-9a-f][0-9a-f]/*.dir")):
            files = dict(_listed(cache, listing))
            card_id = _id_in(files[CARD]) if CARD in files else None
            if card_id is not None:
                found[card_id] = Copy("DVC's cache", files)
        return found


def link_files(folder: Path, target: Path) -> None:
    """Lay a folder's files at a new place, as far as there are any."""
    Copy(folder.name, _files(folder)).write(target)


def cache_folder(root: Path) -> Path:
    """Return where a workspace's DVC keeps the bytes of files, as its config says."""
    folder = root / ".dvc" / "cache"
    for name in (".dvc/config", LOCAL_CONFIG):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read(root / name, encoding="utf-8")
            folder = root / ".dvc" / parser.get("cache", "dir")
        except (configparser.Error, UnicodeDecodeError):
            continue  # it says nothing of the cache
    return folder / "files" / "md5"


def _listed(cache: Path, listing: Path) -> Iterator[tuple[str, Path]]:
    """Give the files of a cached folder; a broken list gives none."""
    try:
        entries = [(one["relpath"], one["md5"]) for one in read_json(listing)]
    except (OSError, ValueError, TypeError, KeyError):
        return
    for name, md5 in entries:
        yield name, cache / md5[:2] / md5[2:]


def _id_in(file: Path) -> str | None:
    try:
        return Card.from_json(json.loads(file.read_bytes())).id
    except (OSError, ValueError, TypeError):
        return None


def _files(folder: Path) -> dict[str, Path]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _hash(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
