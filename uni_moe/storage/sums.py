"""The sums of a kept folder: each file with its sha256, in the form that `sha256sum` reads.

The last line is a comment that holds the hash of the lines above it, the seal: `sha256sum --check`
passes over it, and a list that lost a line is told from a whole one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from uni_moe.artifacts import sha256_file
from uni_moe.errors import LineageError

SUMS = ".sha256"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_REMEDY = (
    "if it is in the store, remove it there with its .sha256 file; then register the model again."
)


def sums_of(folder: Path) -> dict[str, str]:
    """Return every file of a folder with its sha256, the card included."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def sums_text(sums: Mapping[str, str]) -> str:
    """Return sums as the text that is kept."""
    lines = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    return f"{lines}# {_seal(lines)}\n"


def read_sums(text: str, what: str, *, sealed: bool = False) -> dict[str, str]:
    """Return the sums that a text holds; a seal must hold, and must be there if `sealed`.

    Raises:
        LineageError: it is no list of sums, lost a line, or names a file outside its folder.
    """
    lines = text.splitlines(keepends=True)
    has_seal = bool(lines) and lines[-1].startswith("# ")
    body = lines[:-1] if has_seal else lines
    found = [_LINE.fullmatch(line.removesuffix("\n")) for line in body]
    whole = [match for match in found if match is not None and _inside(match[2])]
    seal_holds = lines[-1].strip() == f"# {_seal(''.join(body))}" if has_seal else not sealed
    if len(whole) != len(found) or not seal_holds:
        raise LineageError(
            f"The sums of {what} are broken.",
            cause="the file was changed by hand, or the disk is failing.",
            remedy="remove it, and push or register again what it was made from.",
        )
    return {match[2]: match[1] for match in whole}


def check_sums(
    found: Mapping[str, str], sums: Mapping[str, str], what: str, remedy: str = _REMEDY
) -> None:
    """Hold what was found to its sums.

    Raises:
        LineageError: files differ, are absent, or are too many; it names them.
    """
    wrong = differing(found, sums)
    if wrong:
        raise LineageError(
            f"{what} is not what its sums say: {', '.join(wrong[:5])}.",
            cause="files were changed, added or removed since, or the disk is failing.",
            remedy=remedy,
        )


def differing(found: Mapping[str, str], sums: Mapping[str, str]) -> list[str]:
    """Return the names that two lists of sums do not agree on, in order."""
    return sorted(name for name in {*found, *sums} if found.get(name) != sums.get(name))


def _seal(lines: str) -> str:
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
