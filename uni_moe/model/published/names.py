"""Which published tensor is which of ours, as one table read in both directions.

Source: the key names of the four published variants. `{layer}`, `{expert}` and `{proj}` stand for
one word, `{rest}` for anything. An expert's three matrices lie packed in ours, so several published
tensors fill one of ours: a `Place` says which rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Hearing = Literal["speech", "audio"]
Style = Literal["experts", "deepspeed"]  # how the 4-expert and the 8-expert variants name mixtures

_LAYER = "language_model.model.layers.{layer}"
_COMMON = (
    ("lm_head.weight", "language_model.lm_head.weight"),
    ("model.embed_tokens.weight", "language_model.model.embed_tokens.weight"),
    ("model.norm.weight", "language_model.model.norm.weight"),
    ("model.layers.{layer}.self_attn.{proj}_proj.weight", _LAYER + ".self_attn.{proj}_proj.weight"),
    ("model.layers.{layer}.{proj}_layernorm.weight", _LAYER + ".{proj}_layernorm.weight"),
    ("model.layers.{layer}.mlp.{proj}_proj.weight", _LAYER + ".mlp.{proj}_proj.weight"),
    ("model.mm_projector.0.{rest}", "image_connector.enter.{rest}"),
    ("model.mm_projector.2.{rest}", "image_connector.leave.{rest}"),
    ("model.vision_tower.vision_tower.vision_model.{rest}", "vision_tower.{rest}"),
)
_HEARING: dict[Hearing, tuple[tuple[str, str], ...]] = {
    "speech": (
        ("model.query_tokens", "speech_connector.query_tokens"),
        (
            "model.mm_audio_aligner.decoder.audio_decoder.{rest}",
            "speech_connector.decoder.{rest}",
        ),
        ("model.mm_audio_aligner.projector.{rest}", "speech_connector.projector.{rest}"),
        ("model.audio_tower.audio_tower.{rest}", "speech_tower.{rest}"),
    ),
    "audio": (
        ("model.mm_audio_aligner.query_tokens", "audio_connector.query_tokens"),
        ("model.mm_audio_aligner.qformer.qformer.{rest}", "audio_connector.qformer.{rest}"),
        ("model.mm_audio_aligner.projector.{rest}", "audio_connector.projector.{rest}"),
        ("model.audio_tower.audio_tower.{rest}", "audio_tower.{rest}"),
    ),
}
_MIXTURE: dict[Style, tuple[str, str]] = {
    "experts": (
        "model.layers.{layer}.mlp.gate.weight",
        "model.layers.{layer}.mlp.experts.{expert}.{proj}_proj.weight",
    ),
    "deepspeed": (
        "model.layers.{layer}.mlp.deepspeed_moe.gate.wg.weight",
        "model.layers.{layer}.mlp.deepspeed_moe.experts.deepspeed_experts.{expert}"
        ".{proj}_proj.weight",
    ),
}
_ADAPTER = "model.layers.{layer}.mlp.deepspeed_moe.fm_{proj}.{rest}"
_OUR_ADAPTER = _LAYER + ".mlp.adapters.maps.{proj}.{rest}"
_ROUTER = _LAYER + ".mlp.router.weight"
_PACKED = _LAYER + ".mlp.experts.{packed}"
_WORDS = {"layer": r"\d+", "expert": r"\d+", "proj": "[a-z_]+", "rest": ".+"}
_IGNORED = (
    (r".*\.rotary_emb\.inv_freq", "computed from the configuration"),
    (
        r"model\.mm_audio_aligner\.decoder\.audio_decoder\.embed_tokens\.weight",
        "the decoder is fed with queries; its vocabulary is never read",
    ),
    (r"model\.audio_tower\.(encoder|decoder)\..*", "a second Whisper that is never run"),
    (
        r"model\.vision_tower\.vision_tower\.vision_model\.embeddings\.position_ids",
        "computed from the configuration",
    ),
    (
        r"model\.audio_tower\.audio_tower\.encoder\.layers\.(?!0\.)\d+\.self_attn"
        r"\.relative_attention_bias\.weight",
        "all layers share the first one's table",
    ),
)


@dataclass(frozen=True)
class Place:
    """Where a published tensor stands in ours: a whole tensor, or one expert's rows of a packed.

    `part` is gate, up or down of an expert, or convolution for a 1 x 1 convolution that is a linear
    map here.
    """

    target: str
    slot: int | None = None
    part: str | None = None


def place(name: str, hearing: Hearing | None) -> Place | None:
    """Return where a published tensor goes; None where we have no place for it."""
    for router, expert in _MIXTURE.values():
        found = _match(router, name)
        if found is not None:
            return Place(_fill(_ROUTER, found))
        found = _match(expert, name)
        if found is not None and found["proj"] in ("gate", "up", "down"):
            part = found["proj"]
            packed = "down_proj" if part == "down" else "gate_up_proj"
            target = _fill(_PACKED, {**found, "packed": packed})
            return Place(target, int(found["expert"]), part)
    found = _match(_ADAPTER, name)
    if found is not None:
        if found["proj"] == "audio" and hearing == "speech":
            found["proj"] = "speech"  # the published variants know one kind of sound
        kind = "convolution" if found["rest"] == "weight" else None
        return Place(_fill(_OUR_ADAPTER, found), part=kind)
    for published, ours in (*_COMMON, *(_HEARING[hearing] if hearing else ())):
        found = _match(published, name)
        if found is not None:
            return Place(_fill(ours, found))
    return None


def ignored(name: str) -> str | None:
    """Return why a published tensor is not needed; None where it is."""
    return next((why for pattern, why in _IGNORED if re.fullmatch(pattern, name)), None)


def sees(names: Iterable[str]) -> bool:
    """Say whether a checkpoint has a connector for pictures, or a part of one."""
    return any(name.startswith("model.mm_projector.") for name in names)


def hearing_of(names: Iterable[str]) -> Hearing | None:
    """Tell the variants apart: speech is aligned by a Whisper decoder, audio by a Q-Former."""
    found = set(names)
    if any(name.startswith("model.mm_audio_aligner.decoder.") for name in found):
        return "speech"
    if any(name.startswith("model.mm_audio_aligner.qformer.") for name in found):
        return "audio"
    return None


def published_names(
    ours: str, hearing: Hearing | None, style: Style, experts: int
) -> list[tuple[str, Place]]:
    """Return the published tensors that one of ours is made of; none where they know no such."""
    router, expert = _MIXTURE[style]
    found = _match(_ROUTER, ours)
    if found is not None:
        return [(_fill(router, found), Place(ours))]
    for packed, parts in (("gate_up_proj", ("gate", "up")), ("down_proj", ("down",))):
        found = _match(_PACKED.replace("{packed}", packed), ours)
        if found is not None:
            return [
                (
                    _fill(expert, {**found, "expert": str(slot), "proj": part}),
                    Place(ours, slot, part),
                )
                for slot in range(experts)
                for part in parts
            ]
    found = _match(_OUR_ADAPTER, ours)
    if found is not None and style == "deepspeed":
        part = "convolution" if found["rest"] == "weight" else None
        if found["proj"] == "speech":
            found["proj"] = "audio"
        return [(_fill(_ADAPTER, found), Place(ours, part=part))]
    for published, template in (*_COMMON, *(_HEARING[hearing] if hearing else ())):
        found = _match(template, ours)
        if found is not None:
            return [(_fill(published, found), Place(ours))]
    return []


def _match(template: str, name: str) -> dict[str, str] | None:
    pattern = re.escape(template)
    for word, stands_for in _WORDS.items():
        pattern = pattern.replace(re.escape("{" + word + "}"), f"(?P<{word}>{stands_for})")
    found = re.fullmatch(pattern, name)
    return found.groupdict() if found else None


def _fill(template: str, words: dict[str, str]) -> str:
    return template.format(**words)
