"""What a feature cache holds, by encoder, and how it is freed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uni_moe.artifacts import read_json
from uni_moe.data.blocks import DRAFT, ENDING, read_array, read_places, write_block
from uni_moe.data.features import ABOUT, KEY, size_of
from uni_moe.errors import ConfigError, StageError, bullets
from uni_moe.records import MEDIA_KINDS

_FOLDER = re.compile(rf"({'|'.join(MEDIA_KINDS)})-[0-9a-f]{{{KEY}}}")


@dataclass(frozen=True)
class KeptFeatures:
    """One encoder's features on disk. `about` is what they depend on beside the media."""

    name: str
    kind: str
    media: int
    blocks: int
    size_bytes: int
    about: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


def kept_features(root: Path) -> list[KeptFeatures]:
    """Return what a cache holds, by the names of its folders."""
    return [_kept(folder) for folder in _folders(root)]


def clear_features(root: Path, name: str | None) -> list[KeptFeatures]:
    """Remove a kind's or one folder's features, or all, and return what is gone.

    A process that uses them computes again what it misses. Other files in the folder stay.

    Raises:
        ConfigError: the cache holds nothing of that name.
        StageError: some could not be removed; all that could is gone.
    """
    found = [one for one in kept_features(root) if name in (None, one.kind, one.name)]
    if name is not None and not found:
        held = sorted({word for one in kept_features(root) for word in (one.kind, one.name)})
        raise ConfigError(
            f"The feature cache in {root} holds nothing of {name!r}.",
            cause="no encoder's features have that name.",
            remedy=f"name one of: {', '.join(held)}." if held else "there is nothing to clear.",
        )
    problems: list[str] = []

    def note(_: object, path: str, info: tuple[Any, BaseException, Any]) -> None:
        if not isinstance(info[1], FileNotFoundError):  # another process was faster
            problems.append(f"{path}: {getattr(info[1], 'strerror', None) or info[1]}")

    for one in found:
        shutil.rmtree(root / one.name, onerror=note)
    if problems:
        raise StageError(
            f"Not all features in {root} are gone:{bullets(problems)}",
            cause="the disk refuses it, or a stage was writing features meanwhile.",
            remedy="wait for running stages, look after the files' owner, then clear again.",
        )
    return found


def forget_features(root: Path, contents: Collection[str]) -> int:
    """Remove these media's features from every block, and return how many there were.

    What else a block holds goes to a new one, where the disk takes it; else it is computed again.
    A block that cannot be read, and what killed writers left, go too: nobody knows what they hold.
    No other process may use the cache meanwhile, for it might publish what it remembers.

    Raises:
        OSError: a block cannot be removed.
    """
    count = 0
    for block in [file for folder in _folders(root) for file in sorted(folder.glob(f"*{ENDING}"))]:
        try:
            places = {} if block.name.startswith(DRAFT) else read_places(block)
        except (OSError, ValueError):
            places = {}
        gone = places.keys() & set(contents)
        if gone or not places:
            arrays = {n: read_array(p, n) for n, p in places.items() if n not in gone}
            if rest := {name: array for name, array in arrays.items() if array is not None}:
                with suppress(OSError):
                    write_block(block.parent, rest)
            block.unlink()
            count += len(gone)
    return count


def kept_text(root: Path, kept: list[KeptFeatures]) -> str:
    """Return a table for people."""
    if not kept:
        return f"no features are in {root}"
    lines = [f"{'kind':8}{'media':>10}{'blocks':>8}{'MB':>12}  {'encoder':24}weights"]
    for one in kept:
        count, blocks, size = f"{one.media:,}", f"{one.blocks:,}", f"{one.size_bytes / 1e6:,.1f}"
        weights = str(one.about.get("weights", "?"))[:12]
        lines.append(f"{one.kind:8}{count:>10}{blocks:>8}{size:>12}  {one.name:24}{weights}")
    total = sum(one.size_bytes for one in kept)
    return "\n".join([*lines, f"{total / 1e6:,.1f} MB in {root}"])


def _kept(folder: Path) -> KeptFeatures:
    media: set[str] = set()
    blocks = [file for file in folder.glob(f"*{ENDING}") if not file.name.startswith(DRAFT)]
    for block in blocks:
        try:
            media.update(read_places(block))
        except (OSError, ValueError):  # gone meanwhile, or spoiled: its next reader tells it
            continue
    kind = folder.name.partition("-")[0]
    size = size_of(folder)
    return KeptFeatures(folder.name, kind, len(media), len(blocks), size, _about(folder))


def _about(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(folder / ABOUT)
    except (OSError, ValueError):
        return {}
    return found


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(f for f in root.iterdir() if f.is_dir() and _FOLDER.fullmatch(f.name))
