"""What a feature cache holds, by encoder, and how it is freed."""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uni_moe.artifacts import read_json
from uni_moe.data.blocks import DRAFT, ENDING, read_places
from uni_moe.data.features import ABOUT, KEY, size_of
from uni_moe.errors import ConfigError
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
    """
    found = [one for one in kept_features(root) if name in (None, one.kind, one.name)]
    if name is not None and not found:
        held = sorted({word for one in kept_features(root) for word in (one.kind, one.name)})
        raise ConfigError(
            f"The feature cache in {root} holds nothing of {name!r}.",
            cause="no encoder's features have that name.",
            remedy=f"name one of: {', '.join(held)}." if held else "there is nothing to clear.",
        )
    for one in found:
        shutil.rmtree(root / one.name, ignore_errors=True)
    return found


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
