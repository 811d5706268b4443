"""Sections of params.yaml: where samples come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PlaygroundSource:
    """Samples drawn, synthesized and spoken by our own code, from a seed."""

    kind: Literal["playground"]
    name: str
    seed: int
    train: Mapping[str, int]  # modality -> training samples; an absent modality is not made
    validation: int  # validation items per modality
    test: int  # test items per modality
    text_topics: tuple[Literal["shapes", "motion", "sounds", "words", "digits"], ...]


@dataclass(frozen=True)
class ConversationSource:
    """A LLaVA or Uni-MoE JSON file beside a folder of media."""

    kind: Literal["conversations"]
    name: str
    path: str
    media_root: str
    license: str
    voice_is: Literal["speech", "audio"]


@dataclass(frozen=True)
class ShardedSource:
    """A folder with manifest.jsonl, dataset.json and tar shards."""

    kind: Literal["sharded"]
    name: str
    path: str
    tasks: tuple[str, ...]  # names of tasks in dataset.json
    # A caption for training records that have none, such as "a hand shows {label}". Held-out
    # records get none: it would hold their answer.
    caption: str | None = None


@dataclass(frozen=True)
class SentencesSource:
    """Text-only training samples that name the answers which other sources' prompts can have."""

    kind: Literal["sentences"]
    name: str
    seed: int
    count: int
    answers: Mapping[str, tuple[str, ...]]  # prompt -> the answers to it


Source = PlaygroundSource | ConversationSource | ShardedSource | SentencesSource
