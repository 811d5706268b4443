"""The mixture that tuning begins with: the assembled one, or a registered model."""

from __future__ import annotations

from pathlib import Path

from uni_moe.artifacts import Layout, read_card
from uni_moe.errors import LineageError


def mixture_to_tune(layout: Layout, start: str | None) -> Path:
    """Return the folder of the mixture that tuning begins with.

    Raises:
        LineageError: the registered model is not kept here.
    """
    if start is None:
        return layout.assembled
    folder = layout.store / start / "model"
    if not folder.is_dir() or read_card(folder).id != start:
        raise LineageError(
            f"Tuning cannot begin with the model {start[:12]}: {folder} does not hold it.",
            cause="`tune.start` in params.yaml names a model that is not registered here, or whose "
            "files are in a remote or gone.",
            remedy="bring it with `uni-moe pull`, or set `tune.start` to null.",
        )
    return folder
