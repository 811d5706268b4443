"""A published checkpoint becomes one of ours: merged and packed, checked before it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPImageProcessorPil, WhisperFeatureExtractor

from uni_moe.artifacts import whole_folder, write_json
from uni_moe.checkpoints.published_files import (
    Delta,
    Published,
    Source,
    half_adapters,
    read_published,
)
from uni_moe.checkpoints.tensors import Shape, TensorFile, write_shards
from uni_moe.checkpoints.towers import Towers, find_towers
from uni_moe.errors import ConfigError, LineageError, bullets
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.model.published.config import config_from_published
from uni_moe.model.published.names import hearing_of
from uni_moe.model.published.plan import ImportPlan, bring_in, plan_import

RECEIPT = "import.json"
SYSTEM = (  # the Vicuna v1.1 template, which all published variants use
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_DENSE = re.compile(r"model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight")


@dataclass(frozen=True)
class Import:
    """What an import will do: the configuration, every key's fate, and where tensors come from."""

    config: UniMoeConfig
    plan: ImportPlan
    published: Published
    towers: Towers

    def text(self) -> str:
        """Return every key with what becomes of it, for a person."""
        merged = [
            f"merged   {len(deltas)} adapter(s) into {name}"
            for name, deltas in sorted(self.published.deltas.items())
        ]
        replaced = [f"replaced {line}" for line in sorted(self.published.replaced)]
        return "\n".join([self.plan.text(), *merged, *replaced])

    def receipt(self) -> dict[str, Any]:
        """Return every published key with what became of it."""
        sources = self.published.weights
        return {
            "used": {name: str(sources[name]) for name in sorted(self.plan.used)},
            "merged": {n: len(d) for n, d in sorted(self.published.deltas.items())},
            "ignored": dict(self.plan.ignored),
            "replaced": sorted(self.published.replaced),
        }


def plan_of(
    folders: Sequence[Path],
    *,
    vision_tower: Path | None = None,
    audio_tower: Path | None = None,
    experts: Sequence[Path] = (),
) -> Import:
    """Look at a published checkpoint and say what becomes of every key.

    Args:
        folders: base first, then what was trained on top of it.
        vision_tower: where CLIP lies, instead of the path in config.json.
        audio_tower: where Whisper or BEATs lies.
        experts: stage-2 expert files (`mlp_*.bin`) in slot order; the published order is the
            accident of a directory listing, so it must be said.

    Raises:
        DataError: a file is missing or broken, or wants to run code.
        ConfigError: the checkpoint asks for what was never published, or a tower is not found.
    """
    published = read_published(folders)
    _put_experts(published, experts)
    hearing = hearing_of(published.weights)
    towers = find_towers(
        published.config,
        folders,
        {"vision": vision_tower, "audio": audio_tower},
        inside=set(published.weights),
        hearing=hearing,
    )
    for file, names in towers.files:
        for name, stored in names.items():
            published.put(name, Source(file, stored))
    shapes = {name: source.shape for name, source in published.weights.items()}
    config = config_from_published(
        published.config, shapes, vision=towers.vision, speech=towers.speech, audio=towers.audio
    )
    plan = plan_import(shapes, wanted(config), hearing)
    return Import(config, plan, published, towers)


def import_published(found: Import, out: Path) -> dict[str, int]:
    """Write a published checkpoint as one of ours, whole or not at all.

    Raises:
        LineageError: a key is missing or has no place, or an adapter does not fit the base.
        ConfigError: `out` exists.
    """
    if out.exists():
        raise ConfigError(
            f"{out} exists.",
            cause="an import never writes over something.",
            remedy="name another folder.",
        )
    found.plan.check()
    _check_deltas(found.published)
    with whole_folder(out) as draft:
        sizes = write_shards(draft, bring_in(found.plan, lambda name: _read(found.published, name)))
        found.config.architectures = ["UniMoeForConditionalGeneration"]
        found.config.save_pretrained(draft)
        _save_processor(found, draft)
        write_json(draft / RECEIPT, found.receipt())
    return sizes


def wanted(config: UniMoeConfig) -> dict[str, Shape]:
    """Return name -> shape of a network's tensors, without their memory."""
    with torch.device("meta"):
        model = UniMoeForConditionalGeneration(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _put_experts(published: Published, experts: Sequence[Path]) -> None:
    routed = {
        name.partition(".layers.")[2].partition(".")[0]
        for name in published.weights
        if name.endswith((".mlp.gate.weight", ".deepspeed_moe.gate.wg.weight"))
    }
    for slot, path in enumerate(experts):
        file = TensorFile(path)
        for name in file.shapes:
            match = _DENSE.fullmatch(name)
            if match and match[1] in routed:
                target = f"model.layers.{match[1]}.mlp.experts.{slot}.{match[2]}_proj.weight"
                published.put(target, Source(file, name))


def _check_deltas(published: Published) -> None:
    problems = list(half_adapters(published.deltas))
    for target, deltas in sorted(published.deltas.items()):
        source = published.weights.get(target)
        if source is None:
            problems.append(f"there is no {target} for its adapter")
            continue
        for delta in deltas:
            if delta.a is not None and delta.b is not None:
                made = (delta.b.shape[0], delta.a.shape[1])
                if made != source.shape or delta.b.shape[1] != delta.a.shape[0]:
                    problems.append(f"the adapter of {target} makes {made}, not {source.shape}")
    if problems:
        raise LineageError(
            f"The adapter does not fit the base:{bullets(problems)}",
            cause="it was trained on another base, or one of its files is incomplete.",
            remedy="give the base that it was trained on.",
        )


def _read(published: Published, name: str) -> Tensor:
    """Return a published tensor with its adapters merged, in its own precision."""
    tensor = published.weights[name].read()
    deltas = published.deltas.get(name, [])
    if not deltas:
        return tensor
    whole = tensor.float()
    for delta in deltas:
        whole = whole + _product(delta)
    return whole.to(tensor.dtype)


def _product(delta: Delta) -> Tensor:
    assert delta.a is not None
    assert delta.b is not None
    return delta.scale * (delta.b.read().float() @ delta.a.read().float())


def _save_processor(found: Import, draft: Path) -> None:
    """Write the processor; a checkpoint of weights alone has no tokenizer to make one of."""
    folders: Mapping[str, Path] = found.towers.folders
    home = next(
        (f for f in _homes(found.published) if (f / "tokenizer_config.json").is_file()), None
    )
    if home is None:
        return
    vision, audio = folders.get("vision"), folders.get("audio")
    image = feature = None
    if vision is not None and (vision / "preprocessor_config.json").is_file():
        image = CLIPImageProcessorPil.from_pretrained(vision)
    if found.config.speech_config is not None and audio is not None:
        feature = WhisperFeatureExtractor.from_pretrained(audio)
    UniMoeProcessor.for_model(
        found.config,
        tokenizer=AutoTokenizer.from_pretrained(home),
        image_processor=image,
        feature_extractor=feature,
        system_prompt=SYSTEM,
    ).save_pretrained(draft)


def _homes(published: Published) -> list[Path]:
    return sorted({source.file.path.parent for source in published.weights.values()})
