"""One of our models in the published layout: a base folder that the published loader reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uni_moe.artifacts import whole_folder, write_json
from uni_moe.checkpoints.descent import sign
from uni_moe.checkpoints.tensors import TensorFile, write_shards
from uni_moe.checkpoints.whole import check_absent, read_config, whole_model
from uni_moe.errors import LineageError, bullets
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.processor import PROCESSOR, UniMoeProcessor
from uni_moe.model.published.config import config_to_published
from uni_moe.model.published.names import Hearing, Style
from uni_moe.model.published.plan import take_out
from uni_moe.model.published.unpublished import unpublished

_SIDE = {  # file of its own -> what its keys begin with, in the order in which it holds them
    "mm_projector.bin": ("model.mm_projector.",),
    "mm_audio_aligner.bin": ("model.query_tokens", "model.mm_audio_aligner."),
}
_TOWERS = {
    "vision_tower": "model.vision_tower.vision_tower.",
    "audio_tower": "model.audio_tower.audio_tower.",
}
_TABLE = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def export_published(model: Path, out: Path, *, style: Style = "experts") -> dict[str, int]:
    """Write a model of ours in the published layout, whole or not at all.

    The language model lies in shards, connectors in files of their own, each encoder in a folder
    beside them that config.json names by a relative path. A card names the model it was made from.

    Raises:
        ConfigError: `out` exists, or `model` is none of ours.
        LineageError: the model has parts that no published variant has.
    """
    check_absent(out)
    config = read_config(model)
    _check_published(config, style)
    files, told = whole_model(model, config), config_to_published(config, style)
    with whole_folder(out) as draft:
        sides: dict[str, dict[str, Tensor]] = {name: {} for name in (*_SIDE, *_TOWERS)}
        sizes = write_shards(draft, _language(files, sides, config, style))
        _write_sides(draft, sides)
        _write_towers(draft, sides, config)
        _write_preprocessors(model, draft)
        write_json(draft / "config.json", told)
        for name in _TOKENIZER:
            if (model / name).is_file():
                (draft / name).write_bytes((model / name).read_bytes())
        sign(draft, (model,), stage="export-official", kind="export", params={"style": style})
    return sizes


def _check_published(config: UniMoeConfig, style: Style) -> None:
    problems = unpublished(config, style)
    if problems:
        raise LineageError(
            f"The published layout cannot hold this model:{bullets(problems)}",
            cause="the published code would load it and compute something else.",
            remedy="keep such a model in our own layout; it loads by from_pretrained.",
        )


def _language(
    files: Sequence[TensorFile],
    sides: Mapping[str, dict[str, Tensor]],
    config: UniMoeConfig,
    style: Style,
) -> Iterator[tuple[str, Tensor]]:
    """Return the language model's tensors; put what belongs into other files aside."""
    homes: dict[str, str | tuple[str, ...]] = {**_SIDE, **_TOWERS}
    hearing = _hearing(config)
    for file in files:
        for ours in file.shapes:
            found = take_out({ours: file.read(ours)}, hearing, style, config.num_experts)
            for name, tensor in found.items():
                home = next((h for h, p in homes.items() if name.startswith(p)), None)
                if home is None:
                    yield name, tensor
                else:
                    sides[home][name] = tensor


def _write_sides(draft: Path, sides: Mapping[str, dict[str, Tensor]]) -> None:
    """Write connectors. The published loader takes the first of the aligner's as its queries."""
    for file in _SIDE:
        own = sides[file]
        ordered = sorted(own, key=lambda name: (not name.endswith("query_tokens"), name))
        if own:
            torch.save({name: own[name] for name in ordered}, draft / file)


def _write_towers(
    draft: Path, sides: Mapping[str, dict[str, Tensor]], config: UniMoeConfig
) -> None:
    vision, audio = sides["vision_tower"], sides["audio_tower"]
    if vision and config.vision_config is not None:
        folder = draft / "vision_tower"
        folder.mkdir()
        prefix = _TOWERS["vision_tower"]
        write_shards(folder, iter([(n.removeprefix(prefix), t) for n, t in sorted(vision.items())]))
        write_json(folder / "config.json", _plain(config.vision_config))
    if not audio:
        return
    prefix = _TOWERS["audio_tower"]
    if config.speech_config is not None:
        folder = draft / "audio_tower"
        folder.mkdir()
        named = [("model.encoder." + n.removeprefix(prefix), t) for n, t in sorted(audio.items())]
        write_shards(folder, iter(named))
        write_json(folder / "config.json", _whole_whisper(config))
    else:
        cfg = {k: v for k, v in _plain(config.audio_config).items() if isinstance(v, int | float)}
        weights = {name.removeprefix(prefix): tensor for name, tensor in audio.items()}
        for layer in range(1, config.audio_config.encoder_layers):
            weights[_TABLE.format(layer)] = weights[_TABLE.format(0)]
        torch.save({"cfg": cfg, "model": weights}, draft / "audio_tower.pt")


def _whole_whisper(config: UniMoeConfig) -> dict[str, Any]:
    """Return the tower's configuration; the published aligner reads its decoder's sizes there."""
    shape = config.speech_connector or {}
    return _plain(config.speech_config) | {
        "decoder_layers": shape["layers"],
        "decoder_attention_heads": shape["heads"],
        "decoder_ffn_dim": shape["intermediate_size"],
    }


def _write_preprocessors(model: Path, draft: Path) -> None:
    """Put what prepares media beside the encoders, where a model has a processor."""
    if not (model / PROCESSOR).is_file():
        return
    processor = UniMoeProcessor.from_pretrained(model, local_files_only=True)
    for name, part in (
        ("vision_tower", processor.image_processor),
        ("audio_tower", processor.feature_extractor),
    ):
        if part is not None and (draft / name).is_dir():
            part.save_pretrained(draft / name)


def _plain(config: Any) -> dict[str, Any]:  # noqa: ANN401 - any configuration of transformers
    data: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return data


def _hearing(config: UniMoeConfig) -> Hearing | None:
    if config.speech_config is not None:
        return "speech"
    return "audio" if config.audio_config is not None else None
