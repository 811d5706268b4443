"""How a phase measured its conversations, read off what it left: its artifact and its parents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, WhisperConfig, WhisperFeatureExtractor

from uni_moe.artifacts import CARD, Layout, read_json, verified_card
from uni_moe.config import Packing, Params
from uni_moe.errors import LineageError
from uni_moe.lengths import Lengths
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.encoders.beats import BeatsConfig
from uni_moe.model.processor import PROCESSOR, UniMoeProcessor
from uni_moe.records import Card
from uni_moe.train.pretrained import foundation_folder


def lengths_of(layout: Layout, card: Card, folder: Path, packing: Packing | None) -> Lengths:
    """Return what measures conversations as a phase did.

    An artifact that is a whole model carries its own processor; for another one the parts of the
    foundation are asked that it was made of.

    Raises:
        LineageError: one of them is not the one of that time.
    """
    if (folder / PROCESSOR).is_file():
        processor = UniMoeProcessor.from_pretrained(folder, local_files_only=True)
        language = read_json(folder / "config.json")["text_config"]
    else:
        language = _config(layout, card, "language")
        seen = layout.name_of(layout.foundation("image")) in card.parents
        image = _config(layout, card, "image") if seen else None
        processor = _processor(layout, card.params["model"], language, image)
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


def processor_here(layout: Layout, params: Params) -> UniMoeProcessor | None:
    """Return what counts as the phases of a workspace do; None before there is a tokenizer."""
    for folder in (layout.model, layout.assembled):
        if (folder / PROCESSOR).is_file():
            found: UniMoeProcessor = UniMoeProcessor.from_pretrained(folder, local_files_only=True)
            return found
    there = {
        part: read_json(foundation_folder(layout, part) / "config.json")
        for part in ("language", "image")
        if (layout.foundation(part) / CARD).is_file()
    }
    if "language" not in there:
        return None
    shape = params.section("model")
    return _processor(layout, shape, there["language"], there.get("image"))


def _processor(
    layout: Layout,
    shape: Mapping[str, Any],
    language: Mapping[str, Any],
    image: Mapping[str, Any] | None,
) -> UniMoeProcessor:
    """Build what tokenizes and counts; it prepares no media. Without eyes a picture has no rows."""
    config = UniMoeConfig(
        language,
        None if image is None else image.get("vision_config", image),
        WhisperConfig(),
        BeatsConfig(),
        video_frames=shape["video_frames"],
        speech_connector=shape["speech_connector"],
        audio_connector=shape["audio_connector"],
    )
    tokenizer = AutoTokenizer.from_pretrained(
        foundation_folder(layout, "language"), local_files_only=True
    )
    window_s = shape["speech_connector"]["window_s"]
    return UniMoeProcessor.for_model(
        config,
        tokenizer=tokenizer,
        image_processor=None,
        feature_extractor=WhisperFeatureExtractor(chunk_length=window_s),
        system_prompt=shape["system_prompt"],
    )


def _config(layout: Layout, card: Card, part: str) -> dict[str, Any]:
    """Return the sizes of the foundation's part that a phase learned on."""
    folder = layout.foundation(part)
    check_parent(layout, card, folder, verified_card(folder))
    found: dict[str, Any] = read_json(foundation_folder(layout, part) / "config.json")
    return found
