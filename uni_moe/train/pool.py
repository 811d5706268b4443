"""The media a tiny encoder learns from: the training split's, prepared once, captioned or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uni_moe.data.corpus import Corpus, open_corpus
from uni_moe.data.media import load
from uni_moe.errors import StageError
from uni_moe.progress import progress
from uni_moe.records import MediaRef, Sample
from uni_moe.train.objectives import Words

FRAMES_OF_A_FILM = 4


@dataclass(frozen=True)
class Pool:
    """Prepared media and their captions; a medium without caption has None."""

    media: Tensor
    captions: tuple[str | None, ...]

    @property
    def captioned(self) -> tuple[int, ...]:
        """Indices of media that have a caption."""
        return tuple(i for i, caption in enumerate(self.captions) if caption)

    def words(self) -> Words:
        """Return the vocabulary of the captions."""
        return Words([caption for caption in self.captions if caption])


def gather(
    folders: Sequence[Path],
    kind: str,
    split: str,
    prepare: Callable[[Any], Tensor],
) -> Pool:
    """Load every medium of a kind once. The image encoder also sees frames of films.

    A medium that several samples use has the caption of the first that brings one. A source may
    come without a validation split; the pool is empty then.

    Raises:
        StageError: the training split holds no medium of this kind.
    """
    media: list[Tensor] = []
    captions: list[str | None] = []
    places: dict[str, range] = {}
    for folder in folders:
        corpus = open_corpus(folder)
        for sample in progress(corpus.samples(split), title=f"{folder.name}, {split}"):
            for ref in sample.media:
                if ref.kind not in _kinds(kind):
                    continue
                if ref.content not in places:
                    tensors = _prepared(corpus, ref, prepare)
                    places[ref.content] = range(len(media), len(media) + len(tensors))
                    media += tensors
                    captions += [None] * len(tensors)
                for place in places[ref.content]:
                    captions[place] = captions[place] or _caption(sample, ref)
        corpus.close()
    if not media and split == "train":
        raise StageError(
            f"There is no {kind} in the training split to train an encoder on.",
            cause="no source brings this kind of media, or all of it is in quarantine.",
            remedy=f"add a source with {kind}, or give `foundation.{kind}.pretrained` in params.",
        )
    return Pool(torch.stack(media) if media else torch.empty(0), tuple(captions))


def _kinds(kind: str) -> tuple[str, ...]:
    return ("image", "video") if kind == "image" else (kind,)


def _caption(sample: Sample, ref: MediaRef) -> str | None:
    """A film's caption tells of motion, which no single frame shows."""
    if ref.kind == "speech":
        return sample.transcript
    return sample.caption if ref.kind == sample.modality and ref.kind != "video" else None


def _prepared(corpus: Corpus, ref: MediaRef, prepare: Callable[[Any], Tensor]) -> list[Tensor]:
    medium = load(ref, corpus.media(ref), video_frames=FRAMES_OF_A_FILM)
    return [prepare(one) for one in (medium if isinstance(medium, list) else [medium])]
