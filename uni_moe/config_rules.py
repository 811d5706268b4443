"""What the types of params.yaml cannot say: ranges, and keys that must agree. All told at once."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from math import inf
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uni_moe.config import EncoderTraining, Params, Phase, RoutingLosses

_Rule = tuple[str, Callable[[float], bool]]
_COUNT: _Rule = ("must be at least 1", lambda x: x >= 1)
_POSITIVE: _Rule = ("must be above 0", lambda x: x > 0)
_NOT_NEGATIVE: _Rule = ("must be at least 0", lambda x: x >= 0)
_SHARE: _Rule = ("must lie in [0, 1)", lambda x: 0 <= x < 1)
_INSIDE: _Rule = ("must lie between 0 and 1", lambda x: 0 < x < 1)
# The range of every number, by its key, wherever that key stands.
_RANGES: dict[str, _Rule] = {
    **dict.fromkeys(
        (
            *("threads", "steps", "batch_size", "save_every_steps", "experts_per_token", "rank"),
            *("video_frames", "query_tokens", "layers", "heads", "width", "intermediate_size"),
            *("window_s", "vocab_size", "hidden_size", "max_positions", "max_new_tokens"),
            *("max_items", "count", "image_size", "patch_size", "mel_bins", "patience_steps"),
            *("batch_positions", "row_positions", "rows"),
        ),
        _COUNT,
    ),
    **dict.fromkeys(("learning_rate", "clip_norm", "alpha", "spike_deviations"), _POSITIVE),
    **dict.fromkeys(
        (
            *("seed", "weight_decay", "knock_out_items", "validation", "test", "most_skips"),
            *("balance", "target", "divergence", "approvals"),
        ),
        _NOT_NEGATIVE,
    ),
    **dict.fromkeys(
        ("validation_share", "test_share", "warmup_share", "dropout", "least_entropy"),
        _SHARE,
    ),
    "window_steps": ("must be at least 8", lambda x: x >= 8),
    "collapse_share": ("must lie in (0, 1]", lambda x: 0 < x <= 1),
    "dead_share": _SHARE,
    **dict.fromkeys(("confidence", "power"), _INSIDE),
    "margin": ("must lie in [0, 1]", lambda x: 0 <= x <= 1),
    "min_over_chance": ("must lie in [-1, 1]", lambda x: -1 <= x <= 1),
}
_MEDIA = ("image", "video", "audio", "speech")
_CONNECTORS = ("image", "audio", "speech")
_ARCHITECTURE = {
    "image": {"image_size", "patch_size", "width", "layers", "heads"},
    "audio": {"width", "layers", "heads", "window_s"},
    "speech": {"width", "layers", "heads", "window_s", "mel_bins"},
}


def rules(params: Params) -> list[str]:
    """Return what types cannot say."""
    problems = []
    names = [source.name for source in params.sources]
    problems += [
        f"sources: two sources have the name {name!r}; names must be unique"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    problems += [
        f"sources.{name}: a name may hold letters, digits, '_' and '-' only"
        for name in names
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name)
    ]
    problems += [
        f"prepare.caption_prompts.{name}: no such modality"
        for name in sorted(set(params.prepare.caption_prompts) - set(_MEDIA))
    ]
    problems += _range_rules(params, "")
    problems += [
        f"sources.{source.name}.answers: at least two answers to {prompt!r}"
        for source in params.sources
        if source.kind == "sentences"
        for prompt, answers in source.answers.items()
        if len(set(answers)) < 2
    ]
    problems += _path_rules(params)
    for part in ("image", "audio", "speech", "language"):
        foundation = getattr(params.foundation, part)
        if (foundation.pretrained is None) == (foundation.tiny is None):
            problems.append(f"foundation.{part}: give either `pretrained` or `tiny`, not both")
        if part != "language" and foundation.tiny is not None:
            problems += _encoder_rules(part, foundation.tiny)
    simple = {
        "sources: at least one": bool(params.sources),
        "split: validation_share + test_share must lie in [0, 1)": 0
        <= params.split.validation_share + params.split.test_share
        < 1,
        "model.experts_per_token: more than there are assembly.slots": len(params.assembly.slots)
        >= params.model.experts_per_token,
    }
    problems += [said for said, kept in simple.items() if not kept]
    problems += _layer_rules(params)
    problems += _assembly_rules(params)
    problems += _loss_rules(params.tune.losses, len(params.assembly.slots))
    if params.tune.start is not None and not re.fullmatch("[0-9a-f]{64}", params.tune.start):
        problems.append("tune.start: must be the whole id of a registered model, or null")
    if "modality_adapters" in params.tune.learns and not params.assembly.modality_adapters:
        problems.append("tune.learns: modality_adapters asks for assembly.modality_adapters: true")
    problems += _blend_rules(params)
    phases: dict[str, Phase] = {"tune": params.tune}
    phases |= {f"align.{key}": phase for key, phase in params.align.items()}
    phases |= {f"experts.{key}": phase for key, phase in params.experts.items()}
    for where, phase in phases.items():
        problems += _phase_rules(where, phase) + _learn_rules(where, phase)
        problems += _draw_rules(where, phase, names)
    return problems + _shape_rules(params)


def _range_rules(value: Any, where: str) -> list[str]:  # noqa: ANN401 - any part of the params
    """Check every number whose key has a range. NaN is in none."""
    problems = []
    for key, item in _items(value):
        place = f"{where}.{key}" if where else key
        if isinstance(item, int | float) and key in _RANGES:
            said, kept = _RANGES[key]
            problems += [] if kept(item) else [f"{place}: {said}, found {item}"]
        else:
            problems += _range_rules(item, place)
    return problems


def _items(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    if is_dataclass(value):
        yield from ((field.name, getattr(value, field.name)) for field in fields(value))
    elif isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, tuple):
        yield from ((getattr(item, "name", str(place)), item) for place, item in enumerate(value))


def _encoder_rules(part: str, tiny: EncoderTraining) -> list[str]:
    where, shape = f"foundation.{part}.tiny", tiny.architecture
    problems = []
    if set(shape) != _ARCHITECTURE[part]:
        problems.append(
            f"{where}.architecture: expected {', '.join(sorted(_ARCHITECTURE[part]))}, "
            f"found {', '.join(sorted(shape))}"
        )
    else:
        problems += [
            f"{where}.architecture: {name} must be a multiple of {what}"
            for name, what, of in _multiples(part, shape)
            if of > 0 and shape[name] % of
        ]
    varied = set(tiny.objectives) - {"reconstruct"}
    if set(tiny.variation) != varied:
        problems.append(
            f"{where}.variation: expected a share for {', '.join(sorted(varied)) or 'nothing'}, "
            f"found {', '.join(sorted(tiny.variation)) or 'nothing'}"
        )
    problems += [
        f"{where}.variation.{name}: must lie in [0, 1), found {share}"
        for name, share in tiny.variation.items()
        if not 0 <= share < 1
    ]
    if not tiny.objectives:
        problems.append(f"{where}.objectives: at least one")
    return problems


def _multiples(part: str, shape: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """Return (key, of what it must be a multiple, that number) of an encoder's sizes."""
    found = [("width", "heads", shape["heads"])]
    if part == "image":
        found.append(("image_size", "patch_size", shape["patch_size"]))
    if part == "audio":
        found.append(("width", "4, the groups of its positional convolution", 4))
    return found


def _layer_rules(params: Params) -> list[str]:
    """Sparse layers exist, each once; every connector and expert that dvc.yaml trains is told."""
    layers = params.model.sparse_layers
    tiny = params.foundation.language.tiny
    problems = []
    if isinstance(layers, str):
        if tiny is not None and layers == "first_half" and tiny.layers < 2:
            problems.append("model.sparse_layers: the first half of one layer holds none")
    elif not layers or len(set(layers)) != len(layers) or min(layers) < 0:
        problems.append("model.sparse_layers: at least one, from 0 on, each once")
    elif tiny is not None and max(layers) >= tiny.layers:
        problems.append(
            f"model.sparse_layers: {max(layers)} is no layer; the language model has "
            f"0 to {tiny.layers - 1}"
        )
    for where, told, needed in (
        ("align", params.align, ("image", "audio", "speech")),
        ("experts", params.experts, _MEDIA),
    ):
        problems += [f"{where}.{name}: missing" for name in needed if name not in told]
    return problems


def _blend_rules(params: Params) -> list[str]:
    """A phase draws from the corpora that dvc.yaml gives its stage, else changes go unnoticed."""
    phases: dict[str, tuple[Phase, set[str]]] = {}
    for connector, phase in params.align.items():
        inputs = {"image", "video"} if connector == "image" else {connector}
        phases[f"align.{connector}"] = (phase, set(inputs))
    for expert, phase in params.experts.items():
        phases[f"experts.{expert}"] = (phase, {expert})
    phases["tune"] = (params.tune, {"text", "image", "video", "audio", "speech"})
    return [
        f"{where}.blend: {', '.join(sorted(strange))} is no input of this stage; it may draw from "
        f"{', '.join(sorted(inputs))}"
        for where, (phase, inputs) in phases.items()
        if (strange := set(phase.blend) - inputs)
    ]


def _assembly_rules(params: Params) -> list[str]:
    """Every slot has a donor; a connector that learns in several places has one that survives."""
    chosen = params.assembly.connectors_from
    problems = [
        f"assembly.slots: no expert named {slot!r} is trained"
        for slot in sorted(set(params.assembly.slots) - {"base", *params.experts})
    ]
    for connector, expert in chosen.items():
        phase = params.experts.get(expert)  # type: ignore[call-overload] # any name may stand there
        parts = {f"connector.{connector}", f"projection.{connector}"}
        if phase is None or not parts & set(phase.learns):
            problems.append(
                f"assembly.connectors_from.{connector}: experts.{expert} trains no such connector"
            )
    learned = {
        part.partition(".")[2]
        for phase in params.experts.values()
        for part in phase.learns
        if part.startswith(("connector.", "projection."))
    }
    problems += [
        f"assembly.connectors_from: connector.{name} learns with experts; name the one that stays"
        for name in sorted(learned - set(chosen))
    ]
    return problems


def _loss_rules(losses: RoutingLosses, slots: int) -> list[str]:
    """Experts are wished for modalities and slots that there are, and only where it counts."""
    problems = [
        f"tune.losses.expert_targets.{kind}: {list(wished)} are not all slots of 0 to {slots - 1}"
        for kind, wished in losses.expert_targets.items()
        if not wished or not all(0 <= slot < slots for slot in wished)
    ]
    problems += [
        f"tune.losses.expert_targets.{kind}: no such modality"
        for kind in sorted(set(losses.expert_targets) - {"text", *_MEDIA})
    ]
    if losses.target > 0 and not losses.expert_targets:
        problems.append("tune.losses.target: stands without expert_targets")
    return problems


def _path_rules(params: Params) -> list[str]:
    """Every file of a source must lie under `raw`, else its change would go unnoticed."""
    paths = {
        f"sources.{source.name}.{field}": getattr(source, field)
        for source in params.sources
        for field in ("path", "media_root")
        if hasattr(source, field)
    }
    return [
        f"{where}: {path!r} is not inside `raw: {params.raw}`"
        for where, path in paths.items()
        if PurePath(os.path.relpath(path, params.raw)).parts[:1] == ("..",)
    ]


def _learn_rules(where: str, phase: Phase) -> list[str]:
    """What a phase trains must be what its stage saves: anything else would be lost in silence."""
    kind, _, item = where.partition(".")
    parts = set(phase.learns)
    connectors = {f"connector.{name}" for name in _CONNECTORS}
    connectors |= {f"projection.{name}" for name in ("audio", "speech")}
    mixture = {"lora.attention", "lora.experts", "router", "modality_adapters"}
    needed, allowed = {
        "align": ({f"connector.{item}"}, {f"connector.{item}"}),
        "experts": ({"lora.feed_forward"}, {"lora.feed_forward", *connectors}),
        "tune": (set(), mixture | connectors),
    }[kind]
    problems = [
        f"{where}.learns: {part} would be lost; this phase keeps {', '.join(sorted(allowed))}"
        for part in sorted(parts - allowed)
    ]
    problems += [
        f"{where}.learns: projection.{name} is a part of connector.{name}; name one of them"
        for name in _CONNECTORS
        if {f"connector.{name}", f"projection.{name}"} <= parts
    ]
    return problems + [
        f"{where}.learns: {part} is what this phase is for" for part in sorted(needed - parts)
    ]


def _shape_rules(params: Params) -> list[str]:
    """Sizes that must divide or equal each other, where both stand in the params."""
    problems = []
    for kind in ("audio", "speech"):
        shape = getattr(params.model, f"{kind}_connector")
        tower = getattr(params.foundation, kind).tiny
        where = f"model.{kind}_connector"
        if shape.width % max(1, shape.heads):
            problems.append(f"{where}.width: must be a multiple of heads")
        if tower is not None and tower.architecture.get("window_s") not in (None, shape.window_s):
            problems.append(
                f"{where}.window_s: {shape.window_s} s, but the encoder's window is "
                f"{tower.architecture['window_s']} s"
            )
    language = params.foundation.language.tiny
    if language is not None and language.hidden_size % max(1, 2 * language.heads):
        problems.append(
            "foundation.language.tiny.hidden_size: must be a multiple of heads, each of even width"
        )
    return problems


def _draw_rules(where: str, phase: Phase, sources: Sequence[str]) -> list[str]:
    """A step is cut one way, and weighs sources that there are."""
    problems = []
    if (phase.batch_size is None) == (phase.batch_positions is None):
        problems.append(f"{where}: give either `batch_size` or `batch_positions`, not both")
    for name, weight in phase.sources.items():
        if name not in sources:
            near = difflib.get_close_matches(name, sources, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problems.append(f"{where}.sources.{name}: no source has this name{hint}")
        elif not 0 < weight < inf:
            problems.append(f"{where}.sources.{name}: must be above 0, found {weight}")
    return problems


def _phase_rules(where: str, phase: Phase) -> list[str]:
    problems = [] if phase.learns else [f"{where}.learns: at least one part"]
    if not phase.blend or any(not weight > 0 for weight in phase.blend.values()):
        problems.append(f"{where}.blend: at least one modality, each with a weight above 0")
    if any(part.startswith("lora.") for part in phase.learns) != (phase.lora is not None):
        problems.append(f"{where}: `lora` and the lora.* parts in `learns` go together")
    if phase.lora is not None and phase.lora.dropout > 0 and "lora.experts" in phase.learns:
        problems.append(f"{where}.lora.dropout: must be 0 where lora.experts learns")
    return problems
