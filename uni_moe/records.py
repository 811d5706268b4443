"""The nouns that cross a border, to and from JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

MediaKind = Literal["image", "video", "audio", "speech"]
MEDIA_KINDS: tuple[MediaKind, ...] = ("image", "video", "audio", "speech")
# A sample belongs to the last of these that it contains: a spoken question about an image is
# speech.
MODALITIES: tuple[str, ...] = ("text", "image", "video", "audio", "speech")
SPLITS: tuple[str, ...] = ("train", "validation", "test")
CAPTION = "#caption"  # behind a sample's key: the conversation that asks for its caption


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def sha256_text(text: str) -> str:
    """Return the sha256 of a text's UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Slot:
    """A place in a turn where one piece of media stands."""

    kind: MediaKind


Part = str | Slot


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation: who speaks, and text with slots in order."""

    role: Literal["user", "assistant"]
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The turn's text without its slots."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def slots(self) -> tuple[MediaKind, ...]:
        """The kinds of media this turn asks for, in order."""
        return tuple(part.kind for part in self.parts if isinstance(part, Slot))

    def to_message(self) -> dict[str, Any]:
        """Return the turn in Hugging Face chat form."""
        content = [
            {"type": part.kind} if isinstance(part, Slot) else {"type": "text", "text": part}
            for part in self.parts
        ]
        return {"role": self.role, "content": content}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Turn:
        """Read a turn from Hugging Face chat form."""
        parts = tuple(
            item["text"] if item["type"] == "text" else Slot(item["type"])
            for item in message["content"]
        )
        return cls(role=message["role"], parts=parts)


@dataclass(frozen=True)
class MediaRef:
    """Where one piece of media lies, and what was measured of it.

    `members` are files of the tar shard `shard`, relative to the artifact's folder: one file, the
    frames of a video in order, or several sounds to be joined with `gap_ms` of silence between.
    `sha256` is the hash of the members' bytes (of their hashes, where there are several).
    `frames` picks frames of a film. `track` picks a track of a file that holds both. `duration_s`
    is that of a sound or film as it will be read.
    """

    kind: MediaKind
    sha256: str
    members: tuple[str, ...]
    size_bytes: int
    shard: str | None = None
    gap_ms: int | None = None
    frames: tuple[int, ...] | None = None
    track: Literal["video", "audio"] | None = None
    duration_s: float | None = None

    @property
    def content(self) -> str:
        """What is seen or heard, wherever it lies: two references with one content are one."""
        return f"{self.kind}/{self.sha256}/{self.frames}/{self.gap_ms}/{self.track}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object without absent fields."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MediaRef:
        """Read what `to_json` wrote."""
        fields = dict(data)
        fields["members"] = tuple(fields["members"])
        if fields.get("frames") is not None:
            fields["frames"] = tuple(fields["frames"])
        return cls(**fields)


@dataclass(frozen=True)
class Sample:
    """One accepted sample: a conversation, its media and where both come from.

    `task` names what is asked (`source/name`); items of one task are scored together.
    `answers` counts from the test's point of view: the last turn is the reference answer.
    """

    key: str
    id: str
    source: str
    split: str
    modality: str
    task: str
    turns: tuple[Turn, ...]
    media: tuple[MediaRef, ...] = ()
    license: str | None = None
    subject: str | None = None
    caption: str | None = None
    transcript: str | None = None
    choices: tuple[str, ...] | None = None
    metric: str = "exact_match"
    group: str | None = None  # a finer cell inside a task, such as the question's kind

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object without absent fields."""
        data: dict[str, Any] = {
            "key": self.key,
            "id": self.id,
            "source": self.source,
            "split": self.split,
            "modality": self.modality,
            "task": self.task,
            "turns": [turn.to_message() for turn in self.turns],
            "media": [ref.to_json() for ref in self.media],
            "metric": self.metric,
        }
        for name in ("license", "subject", "caption", "transcript", "choices", "group"):
            value = getattr(self, name)
            if value is not None:
                data[name] = list(value) if isinstance(value, tuple) else value
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sample:
        """Read what `to_json` wrote."""
        fields = dict(data)
        fields["turns"] = tuple(Turn.from_message(message) for message in fields["turns"])
        fields["media"] = tuple(MediaRef.from_json(ref) for ref in fields["media"])
        if fields.get("choices") is not None:
            fields["choices"] = tuple(fields["choices"])
        return cls(**fields)


def source_of(key: str) -> str:
    """Return the source that a key belongs to: what stands before its first slash."""
    return key.partition("/")[0]


def modality_of(kinds: Iterable[str]) -> str:
    """Return the modality a sample belongs to: the last of MODALITIES among its media's kinds."""
    return max((*kinds, "text"), key=MODALITIES.index)


def sample_id(turns: Sequence[Turn], media_sha256: Sequence[str]) -> str:
    """Return a sample's id: the hash of its conversation and its media's bytes."""
    content = {"turns": [turn.to_message() for turn in turns], "media": list(media_sha256)}
    return sha256_text(canonical_json(content))


@dataclass(frozen=True)
class Card:
    """The identity of an artifact, written inside it. Same inputs give the same bytes.

    `parents` maps an artifact's path in the workspace to the id of its card. `files` maps each
    file of the artifact (the card excluded) to its sha256. `results` are facts that the stage
    computed, without clock, host or duration.
    """

    stage: str
    kind: str
    params: Mapping[str, Any]
    parents: Mapping[str, str]
    code: str
    files: Mapping[str, str]
    results: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The artifact's identity: sha256 of the card's canonical JSON."""
        return sha256_text(canonical_json(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """Return the card as a JSON object."""
        return {
            "stage": self.stage,
            "kind": self.kind,
            "params": dict(self.params),
            "parents": dict(self.parents),
            "code": self.code,
            "files": dict(self.files),
            "results": dict(self.results),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Card:
        """Read what `to_json` wrote."""
        return cls(**data)


@dataclass(frozen=True)
class RuleVerdict:
    """What one rule of a contract found.

    `level` says what it judges: each sample, or each whole set (table). `checked` counts the rows
    it applies to, absent values aside. `examples` names some of the failed rows, with the value.
    """

    code: str
    level: str
    rule: str
    why: str
    remedy: str
    checked: int
    failed: int
    examples: Sequence[str]


@dataclass(frozen=True)
class Reason:
    """One reason why samples were refused, whether ingest or a rule of the contract found it."""

    why: str
    remedy: str
    found_by: Literal["ingest", "contract"]
    samples: int
    examples: Sequence[str]


@dataclass(frozen=True)
class SetCount:
    """What became of one source's samples of one modality: listed = accepted + quarantined.

    `reasons` maps a reason code to the samples that carry it; a sample may carry several.
    """

    modality: str
    source: str
    listed: int
    accepted: int
    quarantined: int
    reasons: Mapping[str, int]
    splits: Mapping[str, int]  # split -> accepted samples


@dataclass(frozen=True)
class ContractReport:
    """The verdict of a contract over all samples. It is kept when no set breaks a table rule."""

    contract: str
    version: int
    contract_sha256: str
    kept: bool
    breaches: Sequence[str]
    rules: Sequence[RuleVerdict]
    reasons: Mapping[str, Reason]
    sets: Sequence[SetCount]

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ContractReport:
        """Read what `to_json` wrote."""
        fields = dict(data)
        fields["breaches"] = tuple(fields["breaches"])
        fields["rules"] = tuple(RuleVerdict(**_examples(rule)) for rule in fields["rules"])
        fields["sets"] = tuple(SetCount(**item) for item in fields["sets"])
        fields["reasons"] = {
            code: Reason(**_examples(reason)) for code, reason in fields["reasons"].items()
        }
        return cls(**fields)


def _examples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {**data, "examples": tuple(data["examples"])}


@dataclass(frozen=True)
class Score:
    """How well one group of items was answered, beside what guessing would reach.

    All numbers are shares in [0, 1]. `question_only` answers from the prompt's text alone, with the
    commonest training answer to it. `swapped` is the model's score when the media of this modality
    are exchanged among the items; None for text.
    """

    n: int
    score: float
    low: float
    high: float
    chance: float
    majority: float
    question_only: float
    swapped: float | None


@dataclass(frozen=True)
class EvalReport:
    """The judgement of one model.

    `items` maps a modality to the hash of its items' ids, so that two reports can tell whether they
    are about the same items. `bias` is the spread (largest minus smallest score) over modalities.
    `losses` maps phase -> modality -> {"before", "after"}: validation loss in nats per token.
    `load` maps modality -> layer -> share of visits per expert slot; `knock_out` maps modality ->
    layer -> drop of the score per expert slot. `slots` names the experts in slot order.
    """

    model: str
    items: Mapping[str, str]
    modalities: Mapping[str, Score]
    tasks: Mapping[str, Score]
    mean: float
    bias: float
    losses: Mapping[str, Mapping[str, Mapping[str, float]]]
    slots: Sequence[str]
    load: Mapping[str, Mapping[str, Sequence[float]]]
    knock_out: Mapping[str, Mapping[str, Sequence[float]]]

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EvalReport:
        """Read what `to_json` wrote."""
        fields = dict(data)
        for name in ("modalities", "tasks"):
            fields[name] = {key: Score(**score) for key, score in fields[name].items()}
        return cls(**fields)
