"""Files of keys and values beside the weights, whoever wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from uni_moe.errors import DataError


def read_table(path: Path) -> dict[str, Any]:
    """Return the keys and values of a JSON file.

    Raises:
        DataError: it is broken, or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as JSON: {error}",
            cause="the file was not fetched whole, or was changed by hand.",
            remedy="fetch it again.",
        ) from error
    if not isinstance(data, dict):
        raise DataError(
            f"{path} holds no keys and values.",
            cause="it is not what its name says.",
            remedy="fetch it again.",
        )
    return data
