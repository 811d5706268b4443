"""A file that describes a network may ask for one that cannot be built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uni_moe.errors import ConfigError, UniMoeError, of_disk


@contextmanager
def telling_of(path: Path, remedy: str = "take the one saved with the weights.") -> Iterator[None]:
    """Say which file asked for a network that cannot be built; errors of a disk stay what they are.

    Raises:
        ConfigError: transformers or torch refused what the block made of the file.
    """
    try:
        yield
    except UniMoeError:
        raise
    except Exception as error:
        if of_disk(error) is not None:
            raise
        raise ConfigError(
            f"{path} describes no network: {str(error).strip().partition(chr(10))[0]}",
            cause="a value in it is of another kind or size than it can be.",
            remedy=remedy,
        ) from error
