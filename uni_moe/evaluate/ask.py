"""One question to a model, with files given by a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uni_moe.config import Platform
from uni_moe.data.media import Media, decode_image, decode_sound, decode_video
from uni_moe.data.sources.base import slots_first
from uni_moe.errors import ConfigError, DataError, bullets
from uni_moe.model.chat import MARKS
from uni_moe.model.config import INPUT_OF, UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import PROCESSOR, UniMoeProcessor
from uni_moe.platform import device, settle
from uni_moe.records import MediaKind, Turn

MAX_FILE_BYTES = 2_000_000_000
ORDER: tuple[MediaKind, ...] = ("image", "audio", "speech", "video")  # before a question
Files = Mapping[MediaKind, Sequence[Path]]


@dataclass(frozen=True)
class Opened:
    """A model that lies in memory, ready to be asked, and its processor."""

    model: Any  # transformers types `generate` for classes of its own alone
    processor: UniMoeProcessor


@dataclass(frozen=True)
class Said:
    """An answer, and what it was an answer to.

    `ids` holds the prompt's positions and then the answer's tokens; `features` are what the
    encoders made of the media, which stand at the prompt's slots.
    """

    text: str
    media: Sequence[tuple[MediaKind, Media]]
    ids: Tensor
    prompt_tokens: int
    features: Mapping[str, Tensor]


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
    files: Files = {"image": images, "audio": audio, "speech": speech, "video": videos}
    check_marks(question, files)
    media = decoded(files, open_processor(model_folder).video_frames)  # before weights are read
    return ask(open_model(model_folder), question, media, max_new_tokens=max_new_tokens).text


def open_processor(folder: Path) -> UniMoeProcessor:
    """Load a model's processor alone.

    Raises:
        ConfigError: the model has none.
    """
    if not (folder / PROCESSOR).is_file():
        raise ConfigError(
            f"{folder} has no processor.",
            cause="it was imported without a tokenizer, or only its weights were copied.",
            remedy="import it again from a folder that holds its tokenizer.",
        )
    return UniMoeProcessor.from_pretrained(folder, local_files_only=True)


def open_model(folder: Path) -> Opened:
    """Load a model and its processor, on this process's device.

    Raises:
        ConfigError: the model has no processor.
    """
    processor = open_processor(folder)
    settle(Platform.auto(threads=torch.get_num_threads()))
    model: Any = UniMoeForConditionalGeneration.from_pretrained(folder, local_files_only=True)
    return Opened(model.eval().to(device()), processor)


@torch.no_grad()
def ask(
    opened: Opened,
    question: str,
    media: Sequence[tuple[MediaKind, Media]],
    *,
    max_new_tokens: int,
) -> Said:
    """Let a model answer, greedily; media stand in front, and each is encoded once.

    Raises:
        DataError: the model has no encoder for a kind of media.
    """
    model, processor = opened.model, opened.processor
    _check_encoders(model.config, {kind for kind, _ in media})
    turn = Turn("user", slots_first([kind for kind, _ in media], question))
    inputs = dict(processor([[turn.to_message()]], [media], to_answer=True).to(device()))
    read = {name: inputs.pop(name, None) for name in (*INPUT_OF.values(), "audio_padding")}
    features = model.encode_all(read)
    inputs |= {"features": features} if features else {}
    ids = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)[0]
    length = inputs["input_ids"].shape[1]
    text: str = processor.tokenizer.decode(ids[length:], skip_special_tokens=True)
    return Said(text.strip(), media, ids, length, features)


def check_marks(question: str, files: Files) -> None:
    """Refuse a question that speaks of more media than there are, as prompts with marks do.

    Raises:
        DataError: it has marks for files that were not given.
    """
    given: dict[str, int] = {kind: len(own) for kind, own in files.items()}
    problems = [
        f"{question.count(mark)} marks {mark}, but {given.get(kind, 0)} files for --{kind}"
        for mark, kind in MARKS.items()
        if question.count(mark) > given.get(kind, 0)
    ]
    if problems:
        raise DataError(
            f"The question has{bullets(problems)}",
            cause="a mark stands for a file, and here some would stand for none.",
            remedy="give the missing files; they stand in front of the question without marks too.",
        )


def decoded(
    files: Files, frames: int, names: Mapping[Path, str] | None = None
) -> list[tuple[MediaKind, Media]]:
    """Decode a person's files, in the order given.

    Raises:
        DataError: files are missing or cannot be decoded; all of them at once.
    """
    media: list[tuple[MediaKind, Media]] = []
    problems = []
    for kind, paths in files.items():
        for path in paths:
            name = (names or {}).get(path, str(path))
            try:
                media.append((kind, _decode(kind, _read(path), frames)))
            except OSError as error:
                problems.append(f"{name}: {error.strerror}")
            except DataError as error:
                problems.append(f"{name}: {error.what} {error.cause} {error.remedy}")
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
