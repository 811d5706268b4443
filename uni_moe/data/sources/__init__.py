"""Sources: where raw samples come from. One file per format, one table that knows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uni_moe import config
from uni_moe.data.sources.base import Source
from uni_moe.data.sources.conversations import open_conversations
from uni_moe.data.sources.playground import open_playground
from uni_moe.data.sources.sentences import Sentences
from uni_moe.data.sources.sharded import open_sharded
from uni_moe.errors import DataError, bullets


def open_source(source: config.Source, root: Path) -> Source:
    """Open one source. Paths in its config are relative to `root`, the workspace.

    Raises:
        DataError: the source as a whole cannot be read.
    """
    match source:
        case config.PlaygroundSource():
            return open_playground(source)
        case config.ConversationSource():
            return open_conversations(source, root)
        case config.ShardedSource():
            return open_sharded(source, root)
        case config.SentencesSource():
            return Sentences(source)


def dataset_of(source: config.Source, root: Path) -> tuple[str | None, str]:
    """Return the namespace and the name of the dataset that a source is.

    What lies in files is named by its real path; what our own code makes is one of the workspace.
    Source: the naming of datasets in OpenLineage.
    """
    match source:
        case config.PlaygroundSource() | config.SentencesSource():
            return None, f"sources/{source.name}"
        case config.ConversationSource() | config.ShardedSource():
            return "file", (root / source.path).resolve().as_posix()


def open_sources(sources: Sequence[config.Source], root: Path) -> list[Source]:
    """Open all sources; tell what is wrong with all of them at once.

    Raises:
        DataError: at least one source as a whole cannot be read.
    """
    opened: list[Source] = []
    errors: list[tuple[str, DataError]] = []
    for source in sources:
        try:
            opened.append(open_source(source, root))
        except DataError as error:
            errors.append((source.name, error))
    if len(errors) == 1:
        raise errors[0][1]
    if errors:
        told = [f"{name}: {error.what} {error.remedy}" for name, error in errors]
        raise DataError(
            f"{len(errors)} sources cannot be read:{bullets(told)}",
            cause="; ".join(sorted({error.cause for _, error in errors})),
            remedy="mend each as it says, then run `dvc repro ingest`.",
        )
    return opened
