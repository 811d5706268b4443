"""The encoders that a published checkpoint only names by a path: CLIP, Whisper, BEATs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig, WhisperConfig

from uni_moe.checkpoints.published_adapters import short
from uni_moe.checkpoints.published_beats import HEARING, BeatsFile
from uni_moe.checkpoints.tables import read_table
from uni_moe.checkpoints.tensors import TensorFile, shards_of
from uni_moe.errors import ConfigError
from uni_moe.model.describing import telling_of
from uni_moe.model.encoders.beats import BeatsConfig
from uni_moe.model.published.names import Hearing, hearing_of, sees

PREPROCESSOR = "preprocessor_config.json"
_VISION = "model.vision_tower.vision_tower."
_UNREAD = {  # of a tower's whole model: what begins like this, and why nobody reads it here
    "text_model.": "CLIP's text model is never run",
    "text_projection.": "CLIP's text model is never run",
    "visual_projection.": "CLIP's common space is never used",
    "logit_scale": "CLIP's common space is never used",
    "model.decoder.": "of Whisper the encoder alone is run",
    "decoder.": "of Whisper the encoder alone is run",
    "proj_out.": "of Whisper the encoder alone is run",
}


@dataclass(frozen=True)
class Towers:
    """The encoders' configurations, and their weights under published names.

    `left` says of a tower's other tensors why nobody needs them.
    """

    vision: CLIPVisionConfig | None
    speech: WhisperConfig | None
    audio: BeatsConfig | None
    files: tuple[tuple[TensorFile, Mapping[str, str]], ...]  # file, published name -> name in it
    folders: Mapping[str, Path]
    left: Mapping[str, str]

    @property
    def hearing(self) -> Hearing | None:
        """What the model hears."""
        return "speech" if self.speech else "audio" if self.audio else None


def find_towers(
    told: Mapping[str, Any],
    folders: Sequence[Path],
    given: Mapping[str, Path | None],
    *,
    inside: set[str],
) -> Towers:
    """Find the encoders of a checkpoint: those that its connectors ask for or config.json names.

    Args:
        told: the published config.json, which names them by somebody else's paths.
        folders: the checkpoint's folders; a tower may lie in one under the last word of its path.
        given: "vision" and "audio" -> where a person said that they lie.
        inside: the published names that the checkpoint's own files hold.

    Raises:
        ConfigError: an encoder is not found; says where it was looked for.
    """
    vision = speech = audio = None
    files: list[tuple[TensorFile, Mapping[str, str]]] = []
    where: dict[str, Path] = {}
    left: dict[str, str] = {}
    if sees(inside) or told.get("mm_vision_tower"):
        place = _find("vision", told.get("mm_vision_tower"), folders, given.get("vision"))
        where["vision"] = place
        vision = _clip_config(place)
        if not any(name.startswith(_VISION) for name in inside):
            files += _tower_files(place, _clip_name, left)
    hearing = hearing_of(inside)
    if hearing is not None or told.get("mm_audio_tower"):
        place = _find("audio", told.get("mm_audio_tower"), folders, given.get("audio"))
        where["audio"] = place
        within = any(name.startswith(HEARING) for name in inside)
        if (hearing or _heard_by(place)) == "speech":
            speech = _whisper_config(place)
            files += [] if within else _tower_files(place, _whisper_name, left)
        else:
            file = BeatsFile(_beats_path(place))
            audio = file.config
            files += [] if within else [(file, {HEARING + name: name for name in file.shapes})]
    return Towers(vision, speech, audio, tuple(files), where, left)


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


def _heard_by(place: Path) -> Hearing:
    """Tell a tower's kind where no aligner does: Whisper is a folder that describes itself."""
    return "speech" if (place / "config.json").is_file() else "audio"


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise ConfigError(
            f"There is no config.json in {folder}.",
            cause="a tower is a folder in Hugging Face layout.",
            remedy="fetch the tower whole.",
        )
    return read_table(file)


def _clip_config(folder: Path) -> CLIPVisionConfig:
    told = _config(folder)
    with telling_of(folder / "config.json"):
        return CLIPVisionConfig.from_dict(told.get("vision_config", told))


def _whisper_config(folder: Path) -> WhisperConfig:
    told = _config(folder)
    with telling_of(folder / "config.json"):
        return WhisperConfig.from_dict(told)


def _tower_files(
    folder: Path, named: Callable[[str], str], left: dict[str, str]
) -> list[tuple[TensorFile, Mapping[str, str]]]:
    """Return a tower's files with the published names of what is read; note the rest in `left`."""
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
        names = {}
        for name in file.shapes:
            why = next((why for start, why in _UNREAD.items() if name.startswith(start)), None)
            if why is None:
                names[named(name)] = name
            else:
                left[f"{short(path)}: {name}"] = why
        found.append((file, names))
    return found


def _clip_name(name: str) -> str:
    """CLIP's own folder says vision_model, its tower's alone says nothing."""
    return _VISION + "vision_model." + name.removeprefix("vision_model.")


def _whisper_name(name: str) -> str:
    return HEARING + name.removeprefix("model.").removeprefix("encoder.")


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
