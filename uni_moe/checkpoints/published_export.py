"""One of our models in the published layout: a base folder that the published loader reads."""

from __future__ import annotations

import json
import re
import zlib
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
from uni_moe.model.published.config import BUILT_IN, config_to_published
from uni_moe.model.published.names import Hearing, Style, published_names
from uni_moe.model.published.plan import part_of, take_out
from uni_moe.model.published.unpublished import unpublished

_SIDE = {  # file of its own -> what its keys begin with
    "mm_projector.bin": r"model\.mm_projector\.",
    "mm_audio_aligner.bin": r"model\.(query_tokens|mm_audio_aligner\.)",
    "mlp_gates.bin": r"model\.layers\.\d+\.mlp\.(gate|deepspeed_moe\.gate\.wg)\.",
    "fm_adapter.bin": r"model\.layers\.\d+\.mlp\.deepspeed_moe\.fm_",
}
_FEED_FORWARD = re.compile(r"(model\.layers\.\d+\.mlp\.(.+\.)?(gate|up|down)_proj)\.weight")
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


def export_published(
    model: Path, out: Path, *, style: Style = "experts", absolute: bool = False
) -> dict[str, int]:
    """Write a model of ours in the published layout, whole or not at all.

    The language model lies in shards; connectors, gates and the maps in front of them in files of
    their own; each encoder in a folder beside them that config.json names. In the 8-expert style
    each expert lies in the file of a rank of its own, and the adapters that are built into every
    feed-forward there stand as they begin: A as drawn, B zero. Everything is merged, so there is no
    adapter of peft's (`adapter_model.bin`), nor the `non_lora_trainables.bin` beside one, which
    holds what mm_projector.bin holds. A card names the model it was made from.

    Args:
        model: its folder.
        out: the new folder.
        style: the names of the 4- or of the 8-expert variants.
        absolute: name the encoders by full paths: the published loader looks for relative ones from
            the folder that it is started in.

    Raises:
        ConfigError: `out` exists, or `model` is none of ours.
        LineageError: the model has parts that no published variant has.
    """
    check_absent(out)
    config = read_config(model)
    _check_published(config, style)
    files, told = whole_model(model, config), config_to_published(config, style)
    for name in ("mm_vision_tower", "mm_audio_tower") if absolute else ():
        told |= {name: str(out.resolve() / told[name])} if name in told else {}
    with whole_folder(out) as draft:
        sides: dict[str, dict[str, Tensor]] = {name: {} for name in (*_SIDE, *_TOWERS)}
        sizes = write_shards(draft, _language(files, sides, config, style))
        if style == "deepspeed" and config.sparse_layers:
            _write_experts(draft, files, config)
        _write_sides(draft, sides)
        _write_towers(draft, sides, config)
        _write_preprocessors(model, draft)
        write_json(draft / "config.json", told)
        for name in _TOKENIZER:
            if (model / name).is_file():
                (draft / name).write_bytes((model / name).read_bytes())
        params = {"style": style} | ({"absolute": True} if absolute else {})
        sign(draft, (model,), stage="export-official", kind="export", params=params)
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
    """Return the language model's tensors; put what belongs into other files aside.

    Gates of the 4-expert style lie in its shards as well: its loader reads the base whole, and then
    the file of gates over it.
    """
    hearing = _hearing(config)
    for file in files:
        for ours in file.shapes:
            if style == "deepspeed" and ".mlp.experts." in ours:
                continue  # see `_write_experts`
            found = take_out({ours: file.read(ours)}, hearing, style, config.num_experts)
            for name, tensor in found.items():
                home = _home(name)
                if home is not None:
                    sides[home][name] = tensor
                if home is None or (home == "mlp_gates.bin" and style == "experts"):
                    yield name, tensor
                    yield from _built_in(name, tensor) if style == "deepspeed" else ()


def _home(name: str) -> str | None:
    """Return the file or tower that a published tensor belongs into, None for the shards."""
    side = next((file for file, start in _SIDE.items() if re.match(start, name)), None)
    return side or next((tower for tower, p in _TOWERS.items() if name.startswith(p)), None)


def _write_experts(draft: Path, files: Sequence[TensorFile], config: UniMoeConfig) -> None:
    """Write every expert into the file of a rank of its own, in which it is the first.

    The published loader reads one expert of each file, and a whole expert is all that is held here.
    """
    for slot in range(config.num_experts):
        own: dict[str, Tensor] = {}
        for file in files:
            for ours in (name for name in file.shapes if ".mlp.experts." in name):
                one = file.read_row(ours, slot)
                for name, to in published_names(ours, None, "deepspeed", config.num_experts):
                    if to.slot == slot:
                        local = name.replace(f".deepspeed_experts.{slot}.", ".deepspeed_experts.0.")
                        part = part_of(one, to)
                        own |= {local: part, **dict(_built_in(local, part))}
        torch.save(own, draft / f"{slot}_mlp_experts.bin")


def _built_in(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Give the halves of the adapter beside a feed-forward's matrix, as a training begins: B is 0.

    Without them the published code would draw both.
    """
    match = _FEED_FORWARD.fullmatch(name)
    if match is None:
        return
    (out, inner), rank = weight.shape, int(BUILT_IN["lora_r"])
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    a = torch.rand(rank, inner, generator=generator) * 2 - 1
    yield f"{match[1]}_lora_A.weight", (a * inner**-0.5).to(weight.dtype)
    yield f"{match[1]}_lora_B.weight", weight.new_zeros(out, rank)


def _write_sides(draft: Path, sides: Mapping[str, dict[str, Tensor]]) -> None:
    """Write what has files of its own; the published loader takes an aligner's first as queries."""
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
