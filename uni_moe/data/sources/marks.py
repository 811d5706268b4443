"""Marks in a text, such as <image>, that say where media stands."""

from __future__ import annotations

import re
from collections.abc import Mapping

from uni_moe.records import MEDIA_KINDS, MediaKind, Part, Slot

# Exactly these four are marks. Anything else that looks like a special token is plain text.
MARKS: Mapping[str, MediaKind] = {f"<{kind}>": kind for kind in MEDIA_KINDS}


def parts_of(text: str, marks: Mapping[str, MediaKind] = MARKS) -> tuple[Part, ...]:
    """Cut a text at its marks; what lies between stays as it is written."""
    pattern = "(" + "|".join(map(re.escape, marks)) + ")"
    pieces = [piece for piece in re.split(pattern, text) if piece]
    return tuple(Slot(marks[piece]) if piece in marks else piece for piece in pieces)
