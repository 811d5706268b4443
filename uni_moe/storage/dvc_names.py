"""How DVC names what it keeps: an object by the md5 of its bytes, a folder by that of its list."""

from __future__ import annotations

import hashlib
import json
import re

FILES, LIST = "files/md5/", ".dir"
_OBJECT = re.compile(rf"{FILES}[0-9a-f]{{2}}/[0-9a-f]{{30}}(\{LIST})?")


def is_object(name: str) -> bool:
    """Say whether a name is an object's; what is just being sent has a name of another form."""
    return _OBJECT.fullmatch(name) is not None


def place_of(md5: str) -> str:
    """Return where an object lies below `files/md5`; a list's md5 has .dir behind it."""
    return f"{md5[:2]}/{md5[2:]}"


def object_of(md5: str) -> str:
    """Return an object's name."""
    return FILES + place_of(md5)


def root_of(name: str) -> str:
    """Return the md5 that an object's name says, with .dir behind that of a list."""
    return name.removeprefix(FILES).replace("/", "")


def said_by(name: str) -> str:
    """Return the md5 that an object's name says."""
    return root_of(name).removesuffix(LIST)


def named_in(text: bytes | None) -> set[str]:
    """Return the md5 of every file that a folder's list names; a broken list names none."""
    try:
        return {entry["md5"] for entry in json.loads(text or b"[]")}
    except (ValueError, TypeError, KeyError):
        return set()


def md5_of(data: bytes) -> str:
    """Return the md5 of bytes."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
