"""How a phase measured its conversations, read off what it left: its artifact and its parents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, CLIPImageProcessorPil, WhisperFeatureExtractor

from uni_moe.artifacts import Layout, read_json, verified_card
from uni_moe.config import Packing
from uni_moe.errors import LineageError
from uni_moe.lengths import Lengths
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.records import Card
from uni_moe.train.pretrained import foundation_folder

_PROCESSOR = "processor_config.json"


def lengths_of(layout: Layout, card: Card, folder: Path, packing: Packing | None) -> Lengths:
    """Return what measures conversations as a phase did.

    An artifact that is a whole model carries its own processor; for another one the parts of the
    foundation are asked that it was made of.

    Raises:
        LineageError: one of them is not the one of that time.
    """
    if (folder / _PROCESSOR).is_file():
        processor = UniMoeProcessor.from_pretrained(folder, local_files_only=True)
        language = read_json(folder / "config.json")["text_config"]
    else:
        language = _config(layout, card, "language")
        processor = _processor(layout, card, language)
    return Lengths(processor, language["max_position_embeddings"], packing)


def check_parent(layout: Layout, card: Card, folder: Path, parent: Card) -> None:
    """Refuse an artifact that is not the one that a phase learned from.

    Raises:
        LineageError: it was made anew since.
    """
    name = layout.name_of(folder)
    if card.parents.get(name) != parent.id:
        raise LineageError(
            f"{name} is not the one that {card.stage} learned from.",
            cause="it was made anew since.",
            remedy="bring back the one of that time (`dvc checkout` at its commit), or let the "
            "stage run again.",
        )


def _processor(layout: Layout, card: Card, language: Mapping[str, Any]) -> UniMoeProcessor:
    """Build what tokenizes and counts; it prepares no media."""
    shape, image_rows = card.params["model"], 0
    if layout.name_of(layout.foundation("image")) in card.parents:
        told = _config(layout, card, "image")
        told = told.get("vision_config", told)
        image_rows = (told["image_size"] // told["patch_size"]) ** 2
    tokenizer = AutoTokenizer.from_pretrained(
        foundation_folder(layout, "language"), local_files_only=True
    )
    audio, speech = shape["audio_connector"], shape["speech_connector"]
    return UniMoeProcessor(
        CLIPImageProcessorPil(),
        tokenizer,
        WhisperFeatureExtractor(),
        vocab_size=language["vocab_size"],
        image_rows=image_rows,
        audio_rows=audio["query_tokens"],
        audio_window_s=audio["window_s"],
        speech_rows=speech["query_tokens"],
        speech_window_s=speech["window_s"],
        system_prompt=shape["system_prompt"],
    )


def _config(layout: Layout, card: Card, part: str) -> dict[str, Any]:
    """Return the sizes of the foundation's part that a phase learned on."""
    folder = layout.foundation(part)
    check_parent(layout, card, folder, verified_card(folder))
    found: dict[str, Any] = read_json(foundation_folder(layout, part) / "config.json")
    return found
