"""Conversations that follow from a sample: its own, and the one that asks for its caption."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from uni_moe.data.sources.base import slots_first
from uni_moe.errors import ConfigError
from uni_moe.records import CAPTION, MEDIA_KINDS, MediaKind, Sample, Turn, sample_id

Task = Literal["caption", "answer"]


def conversations(
    samples: Iterable[Sample], tasks: Sequence[Task], prompts: Mapping[str, str]
) -> list[Sample]:
    """Return the conversations that a phase learns from, sample by sample.

    Raises:
        ConfigError: a caption is asked for of a modality without a prompt.
    """
    found: list[Sample] = []
    for sample in samples:
        if "answer" in tasks:
            found.append(sample)
        if "caption" in tasks and (caption := caption_sample(sample, prompts)) is not None:
            found.append(caption)
    return found


def caption_sample(sample: Sample, prompts: Mapping[str, str]) -> Sample | None:
    """Return the conversation whose answer is the sample's caption or transcript, None without.

    Only the media that the words belong to are in it: of a spoken question about a picture the
    transcript belongs to the speech. Its key is the sample's with CAPTION behind it. Its
    modality stays the sample's, in whose corpus the media lie. Test samples have none: they judge.

    Raises:
        ConfigError: there is no prompt for the modality.
    """
    found = carrier([ref.kind for ref in sample.media], sample.caption, sample.transcript)
    if found is None or sample.split == "test":
        return None
    kind, words = found
    if kind not in prompts:
        raise ConfigError(
            f"There is no prompt that asks for the caption of {kind}.",
            cause="prepare.caption_prompts in params.yaml lacks this modality.",
            remedy=f"add prepare.caption_prompts.{kind}, for example `Describe it.`",
        )
    media = tuple(ref for ref in sample.media if ref.kind == kind)
    turns = (
        Turn("user", slots_first((ref.kind for ref in media), prompts[kind])),
        Turn("assistant", (words,)),
    )
    return replace(
        sample,
        key=sample.key + CAPTION,
        id=sample_id(turns, [ref.sha256 for ref in media]),
        task=f"{sample.source}/caption",
        turns=turns,
        media=media,
        metric="exact_match",
        choices=None,
        group=None,
    )


def carrier(
    kinds: Collection[MediaKind], caption: str | None, transcript: str | None
) -> tuple[MediaKind, str] | None:
    """Return the kind of media that carries the sample's words, and the words.

    A transcript belongs to speech where there is any, else to a film: there it is read from lips.
    A caption belongs to the last of picture, film and sound that is there. A caption of speech
    alone says how it sounds, not what is said, so it answers no prompt of ours.
    """
    if transcript and "speech" in kinds:
        return "speech", transcript
    shown: list[MediaKind] = [kind for kind in MEDIA_KINDS if kind in kinds and kind != "speech"]
    if caption and shown:
        return shown[-1], caption
    if transcript and "video" in kinds:
        return "video", transcript
    return None
