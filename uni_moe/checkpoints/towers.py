"""The encoders that a published checkpoint only names by a path: CLIP, Whisper, BEATs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, WhisperConfig

from uni_moe.checkpoints.tensors import Shape, TensorFile, shards_of
from uni_moe.errors import ConfigError, DataError
from uni_moe.model.encoders.beats import BeatsConfig

_VISION = "model.vision_tower.vision_tower."
_HEARING = "model.audio_tower.audio_tower."


@dataclass(frozen=True)
class Towers:
    """The encoders' configurations, and their weights under published names."""

    vision: CLIPVisionConfig | None
    speech: WhisperConfig | None
    audio: BeatsConfig | None
    files: tuple[tuple[TensorFile, Mapping[str, str]], ...]  # file, published name -> name in it
    folders: Mapping[str, Path]


class BeatsFile(TensorFile):
    """The published BEATs file: {"cfg": its sizes, "model": its weights}."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
            self.cfg: dict[str, Any] = dict(found["cfg"])
            self._loaded: Mapping[str, Tensor] = found["model"]
        except (pickle.UnpicklingError, OSError, RuntimeError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no BEATs checkpoint: {str(error).partition(chr(10))[0]}",
                cause='it should hold {"cfg": …, "model": …} and nothing that runs code.',
                remedy="fetch BEATs_iter3_plus_AS2M.pt again.",
            ) from error
        self.shapes: dict[str, Shape] = {n: tuple(t.shape) for n, t in self._loaded.items()}


def find_towers(
    told: Mapping[str, Any],
    folders: Sequence[Path],
    given: Mapping[str, Path | None],
    *,
    inside: set[str],
    hearing: str | None,
) -> Towers:
    """Find the encoders of a checkpoint.

    Args:
        told: the published config.json, which names them by somebody else's paths.
        folders: the checkpoint's folders; a tower may lie in one under the last word of its path.
        given: "vision" and "audio" -> where a person said that they lie.
        inside: the published names that the checkpoint's own shards hold.
        hearing: speech, audio, or None.

    Raises:
        ConfigError: an encoder is not found; says where it was looked for.
    """
    vision = speech = audio = None
    files: list[tuple[TensorFile, Mapping[str, str]]] = []
    where: dict[str, Path] = {}
    if "model.mm_projector.0.weight" in inside:
        place = _find("vision", told.get("mm_vision_tower"), folders, given.get("vision"))
        where["vision"] = place
        vision = _clip_config(place)
        if not any(name.startswith(_VISION) for name in inside):
            files += _tower_files(place, _clip_name)
    if hearing is not None:
        place = _find("audio", told.get("mm_audio_tower"), folders, given.get("audio"))
        where["audio"] = place
        within = any(name.startswith(_HEARING) for name in inside)
        if hearing == "speech":
            speech = WhisperConfig.from_dict(_config(place))
            files += [] if within else _tower_files(place, _whisper_name)
        else:
            file = BeatsFile(_beats_path(place))
            known = BeatsConfig().to_dict().keys()
            audio = BeatsConfig(**{k: v for k, v in file.cfg.items() if k in known})
            files += [] if within else [(file, {_HEARING + name: name for name in file.shapes})]
    return Towers(vision, speech, audio, tuple(files), where)


def _find(kind: str, told: str | None, folders: Sequence[Path], given: Path | None) -> Path:
    if given is not None:
        tried = [given]
    else:
        name = Path(told or kind).name
        tried = [Path(told)] if told else []
        tried += [folder / below for folder in folders for below in (name, f"{kind}_tower")]
    found = next((path for path in tried if path.exists()), None)
    if found is None:
        raise ConfigError(
            f"The {kind} tower of this checkpoint is not here.",
            cause=f"config.json names {told!r}; looked for {', '.join(map(str, tried))}.",
            remedy=f"give its folder as --{kind}-tower.",
        )
    return found


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise ConfigError(
            f"There is no config.json in {folder}.",
            cause="a tower is a folder in Hugging Face layout.",
            remedy="fetch the tower whole.",
        )
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return data


def _clip_config(folder: Path) -> CLIPVisionConfig:
    told = _config(folder)
    return CLIPVisionConfig.from_dict(told.get("vision_config", told))


def _tower_files(folder: Path, named: Any) -> list[tuple[TensorFile, Mapping[str, str]]]:  # noqa: ANN401
    paths = shards_of(folder)
    if not paths:
        raise ConfigError(
            f"{folder} holds no weights.",
            cause="neither model*.safetensors nor pytorch_model*.bin lies there.",
            remedy="fetch the tower whole.",
        )
    found: list[tuple[TensorFile, Mapping[str, str]]] = []
    for path in paths:
        file = TensorFile(path)
        names = {published: name for name in file.shapes if (published := named(name))}
        found.append((file, names))
    return found


def _clip_name(name: str) -> str | None:
    """CLIP's own folder also holds a text model, which nobody reads here."""
    if name.startswith("vision_model."):
        return _VISION + name
    if name.startswith(("text_model.", "logit_scale", "text_projection", "visual_projection")):
        return None
    return _VISION + "vision_model." + name


def _whisper_name(name: str) -> str | None:
    """Of Whisper only the encoder is read."""
    for prefix in ("model.encoder.", "encoder."):
        if name.startswith(prefix):
            return _HEARING + name.removeprefix(prefix)
    return None


def _beats_path(place: Path) -> Path:
    if place.is_file():
        return place
    found = sorted(place.glob("*.pt"))
    if len(found) != 1:
        raise ConfigError(
            f"{place} holds {len(found)} files *.pt.",
            cause="a BEATs tower is one file.",
            remedy="give the file itself as --audio-tower.",
        )
    return found[0]
