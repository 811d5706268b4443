"""Pretrained folders in Hugging Face layout: looked at before they are adopted, loaded whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    WhisperConfig,
    WhisperModel,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from uni_moe.artifacts import Layout, files_of, read_json
from uni_moe.errors import ConfigError, LineageError, bullets
from uni_moe.model.encoders.beats import Beats, BeatsConfig

PRETRAINED = "pretrained.json"
_KINDS: Mapping[str, tuple[str, ...]] = {  # part -> what config.json may call itself
    "image": ("clip", "clip_vision_model"),
    "audio": ("uni_moe_beats",),
    "speech": ("whisper",),
    "language": ("llama",),
}
_BESIDE: Mapping[str, tuple[tuple[str, ...], ...]] = {  # part -> files it needs, one of each group
    "image": (("preprocessor_config.json",),),
    "audio": (),
    "speech": (("preprocessor_config.json",),),
    "language": (("tokenizer.json", "tokenizer.model"), ("tokenizer_config.json",)),
}


_SIZES: Mapping[str, Callable[[Mapping[str, Any]], PreTrainedConfig]] = {
    "image": lambda told: CLIPVisionConfig.from_dict(told.get("vision_config", told)),
    "audio": BeatsConfig.from_dict,
    "speech": WhisperConfig.from_dict,
    "language": LlamaConfig.from_dict,
}


def look_at(part: str, folder: Path, pretrained: str) -> None:
    """Refuse a folder that cannot be this part of the foundation.

    Raises:
        ConfigError: it is missing, of another kind or incomplete; all that is wrong at once.
    """
    config = _config(folder)
    if config is None:
        raise ConfigError(
            f"foundation.{part}.pretrained names {folder}, which is no model folder.",
            cause="the folder is missing, or holds no config.json in Hugging Face layout.",
            remedy="download the model once, and give the path of its folder in params.yaml.",
        )
    problems = []
    kind = config.get("model_type")
    if kind not in _KINDS[part]:
        problems.append(f"it holds a model of type {kind!r}, not {' or '.join(_KINDS[part])}")
    problems += _weights(folder)
    problems += [
        f"there is no {' or '.join(names)}"
        for names in _BESIDE[part]
        if not any((folder / name).is_file() for name in names)
    ]
    if problems:
        raise ConfigError(
            f"foundation.{part}.pretrained: {pretrained!r} cannot be used:{bullets(problems)}",
            cause="the folder is of another model, or was not fetched whole.",
            remedy="fetch the model whole, its weights as safetensors: nothing is unpickled here.",
        )


def foundation_folder(layout: Layout, part: str) -> Path:
    """Return the folder that holds a part's files: the artifact, or the pretrained folder it names.

    Raises:
        LineageError: the pretrained folder is gone or holds other files than were recorded.
    """
    artifact = layout.foundation(part)
    note = artifact / PRETRAINED
    if not note.is_file():
        return artifact
    recorded = read_json(note)
    folder = (layout.root / recorded["path"]).resolve()
    found, known = files_of(folder) if folder.is_dir() else {}, recorded["files"]
    wrong = sorted(name for name in {*found, *known} if found.get(name) != known.get(name))
    if wrong:
        raise LineageError(
            f"The pretrained folder {folder} has changed:{bullets(wrong)}",
            cause="files were removed, added or replaced after the foundation had been recorded.",
            remedy=f"put the recorded files back, or record the new ones by "
            f"`dvc repro --force --single-item foundation@{part}`.",
        )
    return folder


def sizes_in(part: str, folder: Path) -> PreTrainedConfig:
    """Return what config.json says of a part of the foundation; no weight is read."""
    return _SIZES[part](read_json(folder / "config.json"))


def load_tower(part: str, folder: Path) -> nn.Module:
    """Load an encoder of Hugging Face layout; of a whole Whisper its encoder alone."""
    if part == "image":
        return _whole(CLIPVisionModel, folder)
    if part == "audio":
        return _whole(Beats, folder)
    if read_json(folder / "config.json").get("architectures") == ["WhisperEncoder"]:
        return _whole(WhisperEncoder, folder)
    encoder: nn.Module = _whole(WhisperModel, folder).encoder
    return encoder


def load_language(folder: Path) -> LlamaForCausalLM:
    """Load a LLaMA of Hugging Face layout."""
    return _whole(LlamaForCausalLM, folder)


def _whole(kind: Any, folder: Path) -> Any:  # noqa: ANN401 - a class of transformers, its model
    """Load a model all of whose weights are there: what is missing would be drawn at random.

    Raises:
        ConfigError: weights are missing or have another shape.
    """
    try:
        model, told = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, use_safetensors=True
        )
    except (RuntimeError, ValueError) as error:
        raise _misfit(kind, folder, str(error).strip().splitlines()[:5]) from error
    wrong = [*told["missing_keys"], *(str(key) for key in told["mismatched_keys"])]
    if wrong:
        raise _misfit(kind, folder, sorted(wrong))
    return model


def _misfit(kind: Any, folder: Path, problems: list[str]) -> ConfigError:  # noqa: ANN401
    return ConfigError(
        f"{folder} does not hold the weights of a {kind.__name__}:{bullets(problems)}",
        cause="the folder is of another model, or its config.json is not its own.",
        remedy="fetch the model whole.",
    )


def _weights(folder: Path) -> list[str]:
    if (folder / "model.safetensors").is_file():
        return []
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return ["there is no model.safetensors, nor an index of shards"]
    try:
        names = set(read_json(index)["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{index.name} is broken"]
    return [f"there is no {name}" for name in sorted(names) if not (folder / name).is_file()]


def _config(folder: Path) -> dict[str, Any] | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None
