"""One question to a model, with files given by a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch

from uni_moe.config import Platform
from uni_moe.data.media import Media, decode_image, decode_sound, decode_video
from uni_moe.data.sources.base import slots_first
from uni_moe.errors import ConfigError, DataError, bullets
from uni_moe.model.chat import MARKS
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import PROCESSOR, UniMoeProcessor
from uni_moe.platform import device, settle
from uni_moe.records import MediaKind, Turn

MAX_FILE_BYTES = 2_000_000_000


def answer(  # noqa: PLR0913 - one argument per kind of media
    model_folder: Path,
    question: str,
    *,
    images: Sequence[Path],
    videos: Sequence[Path],
    audio: Sequence[Path],
    speech: Sequence[Path],
    max_new_tokens: int,
) -> str:
    """Return the model's answer. Media stand in front of the question, as in training.

    Raises:
        ConfigError: the model has no processor.
        DataError: files are missing or cannot be decoded (all of them at once), the question has
            marks for more of them, or the model has no encoder for a kind of media.
    """
    _check_processor(model_folder)
    given = {"image": images, "video": videos, "audio": audio, "speech": speech}
    _check_marks(question, {kind: len(own) for kind, own in given.items()})
    settle(Platform.auto(threads=torch.get_num_threads()))
    processor = UniMoeProcessor.from_pretrained(model_folder, local_files_only=True)
    files: dict[MediaKind, Sequence[Path]] = {
        "image": images,
        "audio": audio,
        "speech": speech,
        "video": videos,
    }
    media = decoded(files, processor.video_frames)
    turn = Turn("user", slots_first([kind for kind, _ in media], question))
    model: Any = UniMoeForConditionalGeneration.from_pretrained(model_folder, local_files_only=True)
    _check_encoders(model.config, {kind for kind, _ in media})
    model.eval().to(device())
    inputs = processor([[turn.to_message()]], [media], to_answer=True).to(device())
    with torch.no_grad():
        new = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    new = new[0, inputs["input_ids"].shape[1] :]
    said: str = processor.tokenizer.decode(new, skip_special_tokens=True)
    return said.strip()


def _check_processor(folder: Path) -> None:
    if not (folder / PROCESSOR).is_file():
        raise ConfigError(
            f"{folder} has no processor.",
            cause="it was imported without a tokenizer, or only its weights were copied.",
            remedy="import it again from a folder that holds its tokenizer.",
        )


def _check_marks(question: str, files: Mapping[str, int]) -> None:
    """Refuse a question that speaks of more media than there are, as prompts with marks do."""
    problems = [
        f"{question.count(mark)} marks {mark}, but {files[kind]} files for --{kind}"
        for mark, kind in MARKS.items()
        if question.count(mark) > files[kind]
    ]
    if problems:
        raise DataError(
            f"The question has{bullets(problems)}",
            cause="a mark stands for a file, and here some would stand for none.",
            remedy="give the missing files; they stand in front of the question without marks too.",
        )


def decoded(
    files: Mapping[MediaKind, Sequence[Path]], frames: int
) -> list[tuple[MediaKind, Media]]:
    """Decode a person's files, in the order given.

    Raises:
        DataError: files are missing or cannot be decoded; all of them at once.
    """
    media: list[tuple[MediaKind, Media]] = []
    problems = []
    for kind, paths in files.items():
        for path in paths:
            try:
                media.append((kind, _decode(kind, _read(path), frames)))
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
            except DataError as error:
                problems.append(f"{path}: {error.what} {error.cause} {error.remedy}")
    if problems:
        raise DataError(
            f"{len(problems)} file(s) cannot be shown to the model:{bullets(problems)}",
            cause="the files are missing, or are not what the option says; each is told above.",
            remedy="give a picture to --image, a film to --video, a sound to --audio or --speech.",
        )
    return media


def _check_encoders(config: UniMoeConfig, kinds: Set[str]) -> None:
    encoders = {
        "image": config.vision_config,
        "video": config.vision_config,
        "audio": config.audio_config,
        "speech": config.speech_config,
    }
    missing = sorted(kind for kind in kinds if encoders[kind] is None)
    if missing:
        raise DataError(
            f"The model takes no {' and no '.join(missing)}.",
            cause="it was made without an encoder for it.",
            remedy="ask without these files, or ask another model.",
        )


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(
            f"The file has more than {MAX_FILE_BYTES} bytes.",
            cause="a whole file is read at once.",
            remedy="cut the file into parts.",
        )
    return path.read_bytes()


def _decode(kind: MediaKind, data: bytes, frames: int) -> Media:
    if kind == "image":
        return decode_image(data)
    return decode_video([data], want=frames) if kind == "video" else decode_sound([data])
