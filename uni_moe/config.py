"""params.yaml, typed: all rules, no values. The only file that opens it.

Every key is required and every unknown key is an error, so that a params file is complete: what
a run did stands in it. All problems of a file are told at once.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from uni_moe.config_rules import rules
from uni_moe.errors import ConfigError, bullets
from uni_moe.yaml_text import parse_yaml

_Section = typing.TypeVar("_Section")
Connector = Literal["image", "audio", "speech"]
ExpertName = Literal["image", "video", "audio", "speech"]
# Parts of the network that a phase may train; uni_moe.model.parts says which parameters they are.
Part = Literal[
    "connector.image",
    "connector.audio",
    "connector.speech",
    "projection.audio",
    "projection.speech",
    "router",
    "modality_adapters",
    "lora.attention",
    "lora.feed_forward",
    "lora.experts",
    "language",
]


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


@dataclass(frozen=True)
class Platform:
    """How a process computes; every run records it, with what was chosen for `auto`.

    See uni_moe.routes for what each may be.
    """

    threads: int
    matmul: Literal["auto", "default", "onednn"]
    attention: Literal["auto", "fused", "plain"]
    experts: Literal["auto", "reference", "grouped", "fused"]
    elementwise: Literal["auto", "torch", "native"]
    allocator: Literal["auto", "default", "keep"]

    @staticmethod
    def auto(threads: int) -> Platform:
        """Leave everything but the number of threads to the machine."""
        return Platform(threads, "auto", "auto", "auto", "auto", "auto")


@dataclass(frozen=True)
class FeatureCacheSettings:
    """How far features of frozen encoders are kept on disk, by kind of media.

    They say where features come from, never what they are, so they belong to a machine and not to
    params.yaml: nothing that is hashed knows them.
    """

    image: bool = True
    video: bool = True
    audio: bool = True
    speech: bool = True
    folder: str | None = None  # below the workspace or anywhere; None is state/features
    memory_bytes: int = 2**30  # of every process, for features used of late
    limit_bytes: int | None = None  # of the folder; None lets it grow
    spare_share: float = 0.05  # of the disk that stays free, for what must be written


@dataclass(frozen=True)
class Contract:
    """Which contract the manifest must keep."""

    manifest: str


@dataclass(frozen=True)
class Split:
    """The shares that samples without an official split fall into, by the hash of their key."""

    validation_share: float
    test_share: float


@dataclass(frozen=True)
class Prepare:
    """How samples become a corpus."""

    caption_prompts: Mapping[str, str]  # modality -> the prompt that asks for a caption


@dataclass(frozen=True)
class EncoderTraining:
    """A tiny encoder, trained here from scratch, never on the answers that are evaluated."""

    objectives: tuple[Literal["caption", "reconstruct", "contrast"], ...]
    steps: int
    batch_size: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    clip_norm: float
    # objective -> how far media are cropped, shifted and lit while it trains, as a share of a side
    variation: Mapping[Literal["caption", "contrast"], float]
    save_every_steps: int
    architecture: Mapping[str, int]


@dataclass(frozen=True)
class EncoderFoundation:
    """An encoder: a pretrained folder in Hugging Face layout, or a tiny one to train here."""

    pretrained: str | None
    tiny: EncoderTraining | None


@dataclass(frozen=True)
class LanguageTraining:
    """A tiny language model and its tokenizer, trained here on text alone."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    max_positions: int
    steps: int
    batch_size: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    clip_norm: float
    save_every_steps: int


@dataclass(frozen=True)
class LanguageFoundation:
    """The language model: a pretrained folder in Hugging Face layout, or a tiny one."""

    pretrained: str | None
    tiny: LanguageTraining | None


@dataclass(frozen=True)
class Foundation:
    """Where training starts from. Video is seen by the image encoder."""

    image: EncoderFoundation
    audio: EncoderFoundation
    speech: EncoderFoundation
    language: LanguageFoundation


@dataclass(frozen=True)
class QueryConnector:
    """A connector that reads an encoder's features with learned queries."""

    query_tokens: int
    layers: int
    width: int
    heads: int
    intermediate_size: int
    window_s: int


@dataclass(frozen=True)
class ModelShape:
    """The parts of the network that the foundation does not fix."""

    # Decoder layers that become mixtures: a list, or a layout (interval: every second layer).
    sparse_layers: tuple[int, ...] | Literal["all", "interval", "first_half", "second_half"]
    experts_per_token: int
    vision_select_layer: int  # which of the vision tower's hidden states; -2 as published
    video_frames: int
    frame_time_embedding: bool
    standardize_features: bool
    system_prompt: str
    speech_connector: QueryConnector
    audio_connector: QueryConnector


@dataclass(frozen=True)
class Lora:
    """Size of low-rank adapters."""

    rank: int
    alpha: int
    dropout: float


@dataclass(frozen=True)
class Packing:
    """How the conversations of a step lie in rows, and what happens to one that is too long.

    A row takes `row_positions` positions at most, several conversations one behind the other; null
    gives each a row of its own. `rows` of them are computed at once; null takes all of a step. What
    is longer than a row, or than the language model reads, is refused, or loses its end.
    """

    row_positions: int | None
    rows: int | None
    on_too_long: Literal["refuse", "truncate"]


@dataclass(frozen=True)
class Phase:
    """One training phase: what learns, from what, how long.

    `learns` names parts of the model. `blend` weighs modalities against each
    other; a modality without weight is not drawn. `sources` says how often a sample of a source is
    drawn beside one of another of its modality; without a weight it is 1. `tasks` says which
    conversations are drawn: `caption` (captions and transcripts), `answer` (questions), or both.
    A step draws `batch_size` conversations, or as many as have `batch_positions` positions
    together. Without `packing` a step is computed at once, each conversation in a row of its own.
    """

    learns: tuple[Part, ...]
    blend: Mapping[str, float]
    tasks: tuple[Literal["caption", "answer"], ...]
    steps: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    clip_norm: float
    save_every_steps: int
    lora: Lora | None
    batch_size: int | None = None
    batch_positions: int | None = None
    sources: Mapping[str, float] = field(default_factory=dict)
    packing: Packing | None = None


@dataclass(frozen=True)
class RoutingLosses:
    """What is added to the loss of the next token, each off at 0; see uni_moe.model.losses."""

    balance: float  # all experts are visited alike
    target: float  # a modality's tokens go to the experts wished for it
    divergence: float  # modalities of one sample are routed differently
    expert_targets: Mapping[str, tuple[int, ...]]  # modality -> slots wished for its tokens


@dataclass(frozen=True, kw_only=True)
class TunePhase(Phase):
    """The phase that has a mixture to tune."""

    losses: RoutingLosses


@dataclass(frozen=True)
class Guard:
    """What a phase does when a step's loss or gradient is no number, or leaps far above the usual.

    `skip` goes back to the last training state and leaves the step's draws out. A leap is told in
    deviations of the logarithm from its median over the steps before, robust ones (1.5 MAD).
    """

    on_not_finite: Literal["stop", "skip"]
    on_spike: Literal["tell", "stop", "skip"]
    most_skips: int  # the phase stops at the next one
    window_steps: int  # how many steps before it a step is compared with
    spike_deviations: float


@dataclass(frozen=True)
class RouterAlarms:
    """When the routing of a sparse layer is told as an alarm; it never stops a phase."""

    patience_steps: int  # so many steps in a row must show it
    collapse_share: float  # of the visits, by as many experts as one token visits
    least_entropy: float  # of the router, as a share of what an even choice has
    dead_share: float  # an expert with less than this share of an even load is dead


@dataclass(frozen=True)
class Telemetry:
    """What is watched at every step of a phase."""

    guard: Guard
    router: RouterAlarms


@dataclass(frozen=True)
class Assembly:
    """Which expert fills which slot of every sparse layer, in order."""

    slots: tuple[Literal["base", "image", "video", "audio", "speech"], ...]
    connectors_from: Mapping[str, str]  # connector -> the expert whose connector survives
    modality_adapters: bool  # a linear map per modality in front of every router


@dataclass(frozen=True)
class Evaluate:
    """How a model is judged."""

    batch_size: int
    max_new_tokens: int
    max_items: int | None  # per modality; None takes the whole test split
    confidence: float
    knock_out_items: int  # items per modality for the knock-out table; 0 leaves it out


@dataclass(frozen=True)
class Gate:
    """When a candidate may replace the champion."""

    margin: float  # a modality may lose this share at most
    min_over_chance: float  # every modality must beat chance and majority by this share
    confidence: float  # of the paired intervals that show "not worse" and "better"
    power: float  # with which the smallest difference that is told would be seen
    approvals: int  # people who must approve a model before it becomes the champion


@dataclass(frozen=True)
class Params:
    """A complete params.yaml."""

    seed: int
    platform: Platform
    raw: str  # where file-based sources lie; ingest runs again when anything in it changes
    sources: tuple[Source, ...]
    split: Split
    contract: Contract
    prepare: Prepare
    foundation: Foundation
    model: ModelShape
    align: Mapping[Connector, Phase]
    experts: Mapping[ExpertName, Phase]
    assembly: Assembly
    tune: TunePhase
    telemetry: Telemetry
    evaluate: Evaluate
    gate: Gate

    def section(self, *path: str) -> dict[str, Any]:
        """Return a section as plain JSON, for a card: `section("align", "image")`."""
        value: Any = self
        for name in path:
            value = value[name] if isinstance(value, Mapping) else getattr(value, name)
        plain = _plain(value)
        return plain if isinstance(plain, dict) else {path[-1]: plain}


def load_params(path: Path) -> Params:
    """Read and check a params file.

    Raises:
        ConfigError: the file is missing or not YAML, or lists every key that is wrong.
    """
    if not path.is_file():
        raise ConfigError(
            f"There is no {path.name} in {path.parent}.",
            cause="this folder is not a workspace.",
            remedy="run the command in a workspace, or make one with `uni-moe new FOLDER`.",
        )
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not YAML: {error}",
            cause="a slip of the pen, or a file that is not text.",
            remedy="mend the line named above.",
        ) from error
    return parse_params(data, name=str(path))


def parse_params(data: object, *, name: str = "params.yaml") -> Params:
    """Build params from plain data; tell all problems at once."""
    problems: list[str] = []
    params = build(Params, data, "", problems)
    if not problems:
        problems.extend(rules(params))
    if problems:
        raise ConfigError(
            f"{name} has {len(problems)} problem(s):{bullets(problems)}",
            cause="keys that are unknown, missing or of the wrong type, or values against a rule.",
            remedy="compare with a complete recipe: `uni-moe new FOLDER --recipe playground`.",
        )
    return typing.cast("Params", params)


def of_card(kind: type[_Section], section: Mapping[str, Any]) -> _Section:
    """Return a section that a card's params hold: what `Params.section` wrote.

    Raises:
        ConfigError: it was written by a version with other keys.
    """
    problems: list[str] = []
    found = build(kind, section, "", problems)
    if problems:
        raise ConfigError(
            f"A card's params are not those of this version:{bullets(problems)}",
            cause="its artifact was made by another version of the project.",
            remedy="use that version, or let the stage run again.",
        )
    return typing.cast("_Section", found)


def build(kind: Any, value: object, where: str, problems: list[str]) -> Any:  # noqa: ANN401, PLR0911, C901
    """Turn plain data into the type `kind`; note every problem with its place."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _build_union(arguments, value, where, problems)
    if is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, where, problems)
    if origin is Literal:
        if value not in arguments:
            problems.append(f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            problems.append(f"{where}: expected a list, found {value!r}")
            return ()
        return tuple(
            build(arguments[0], item, f"{where}[{i}]", problems) for i, item in enumerate(value)
        )
    if origin is Mapping or origin is dict:
        if not isinstance(value, Mapping):
            problems.append(f"{where}: expected keys and values, found {value!r}")
            return {}
        return {
            build(arguments[0], key, f"{where} (key)", problems): build(
                arguments[1], item, f"{where}.{key}", problems
            )
            for key, item in value.items()
        }
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        hint = ""
        if kind is float and isinstance(value, str) and _is_number(value):
            hint = " (YAML reads 1e-4 as text; write 1.0e-4)"
        problems.append(f"{where}: expected {_name(kind)}, found {value!r}{hint}")
    return value


def _build_union(
    arguments: tuple[Any, ...], value: object, where: str, problems: list[str]
) -> object:
    if value is None and type(None) in arguments:
        return None
    choices = [argument for argument in arguments if argument is not type(None)]
    if len(choices) == 1:
        return build(choices[0], value, where, problems)
    named = [choice for choice in choices if typing.get_origin(choice) is Literal]
    if named:  # a name, or what it stands for
        others = [choice for choice in choices if choice not in named]
        return build((named if isinstance(value, str) else others)[0], value, where, problems)
    kinds = {typing.get_args(typing.get_type_hints(c)["kind"])[0]: c for c in choices}
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind not in kinds:
        problems.append(f"{where}.kind: {kind!r} is not one of {', '.join(map(repr, kinds))}")
        return None
    return build(kinds[kind], value, where, problems)


def _build_dataclass(
    kind: Callable[..., object], value: object, where: str, problems: list[str]
) -> object:
    if not isinstance(value, Mapping):
        problems.append(f"{where or 'the file'}: expected keys and values, found {value!r}")
        return None
    hints = typing.get_type_hints(kind)
    prefix = f"{where}." if where else ""
    for key in value:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            problems.append(
                f"{prefix}{key}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
            )
    built = {}
    for item in fields(kind):  # type: ignore[arg-type] # a dataclass, checked by the caller
        if item.name in value:
            place = f"{prefix}{item.name}"
            built[item.name] = build(hints[item.name], value[item.name], place, problems)
        elif item.default is MISSING and item.default_factory is MISSING:
            problems.append(f"{prefix}{item.name}: missing")
            built[item.name] = None
    return kind(**built)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _name(kind: object) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(typing.cast("type", kind), str(kind))
