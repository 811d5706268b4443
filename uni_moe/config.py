"""params.yaml, typed: all rules, no values. The only file that opens it.

Every key is required and every unknown key is an error, so that a params file is complete: what
a run did stands in it. All problems of a file are told at once. Sections of one theme stand in
config_*.py and are asked for here.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from uni_moe.config_building import build
from uni_moe.config_foundation import (
    EncoderFoundation,
    EncoderTraining,
    Foundation,
    LanguageFoundation,
    LanguageTraining,
    ModelShape,
    QueryConnector,
)
from uni_moe.config_phases import Lora, Packing, Part, Phase, RoutingLosses, TunePhase
from uni_moe.config_rules import rules
from uni_moe.config_sources import (
    ConversationSource,
    PlaygroundSource,
    SentencesSource,
    ShardedSource,
    Source,
)
from uni_moe.errors import ConfigError, bullets
from uni_moe.yaml_text import parse_yaml

__all__ = [
    "Assembly",
    "Connector",
    "Contract",
    "ConversationSource",
    "EncoderFoundation",
    "EncoderTraining",
    "Evaluate",
    "ExpertName",
    "Foundation",
    "Gate",
    "Guard",
    "LanguageFoundation",
    "LanguageTraining",
    "Lora",
    "ModelShape",
    "Packing",
    "Params",
    "Part",
    "Phase",
    "Platform",
    "PlaygroundSource",
    "Prepare",
    "QueryConnector",
    "RouterAlarms",
    "RoutingLosses",
    "SentencesSource",
    "ShardedSource",
    "Source",
    "Split",
    "Telemetry",
    "TunePhase",
    "load_params",
    "of_card",
    "parse_params",
]

_Section = typing.TypeVar("_Section")
Connector = Literal["image", "audio", "speech"]
ExpertName = Literal["image", "video", "audio", "speech"]


@dataclass(frozen=True)
class Platform:
    """How a process computes; every run records it, with what was chosen for `auto`.

    See uni_moe.routes for what each may be.
    """

    threads: int
    # What frozen weights are held in and products computed in; what learns stays float32.
    precision: Literal["float32", "bfloat16"]
    matmul: Literal["auto", "default", "onednn"]
    attention: Literal["auto", "fused", "plain"]
    experts: Literal["auto", "reference", "grouped", "fused"]
    elementwise: Literal["auto", "torch", "native"]
    allocator: Literal["auto", "default", "keep"]

    @staticmethod
    def auto(threads: int) -> Platform:
        """Leave everything but the number of threads to the machine; compute in float32."""
        return Platform(threads, "float32", "auto", "auto", "auto", "auto", "auto")


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


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
