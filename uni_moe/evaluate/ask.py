"""One question to a model, with files given by a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uni_moe.data.media import decode_image, decode_sound, decode_video
from uni_moe.errors import DataError, bullets
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.platform import device


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
        DataError: files are missing or cannot be decoded; all of them at once.
    """
    processor = UniMoeProcessor.from_pretrained(model_folder)
    files = {"image": images, "video": videos, "audio": audio, "speech": speech}
    media = _decoded(files, processor.video_frames)
    content = [{"type": kind} for kind, _ in media]
    text = {"type": "text", "text": f"\n{question}" if media else question}
    inputs = processor([[{"role": "user", "content": [*content, text]}]], [media], to_answer=True)
    model = UniMoeForConditionalGeneration.from_pretrained(model_folder, local_files_only=True)
    model = model.eval().to(device())
    inputs = inputs.to(device())
    new = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    new = new[0, inputs["input_ids"].shape[1] :]
    said: str = processor.tokenizer.decode(new, skip_special_tokens=True)
    return said.strip()


def _decoded(files: dict[str, Sequence[Path]], frames: int) -> list[tuple[str, Any]]:
    media: list[tuple[str, Any]] = []
    problems = []
    for kind, paths in files.items():
        for path in paths:
            try:
                media.append((kind, _decode(kind, path.read_bytes(), frames)))
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
            except DataError as error:
                problems.append(f"{path}: {error.what} {error.cause}")
    if problems:
        raise DataError(
            f"{len(problems)} file(s) cannot be shown to the model:{bullets(problems)}",
            cause="the files are missing, or are not what the option says.",
            remedy="give a picture to --image, a film to --video, a sound to --audio or --speech.",
        )
    return media


def _decode(kind: str, data: bytes, frames: int) -> Any:  # noqa: ANN401 - picture, film or sound
    if kind == "image":
        return decode_image(data)
    return decode_video([data], want=frames) if kind == "video" else decode_sound([data])
