"""Features of media: remembered, else read from the cache, else computed and kept.

Frozen encoders cost once: each medium is encoded alone, so its features depend on nothing but the
medium and the encoder. They live in the CPU's memory and move to a device with their batch.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from uni_moe import routes
from uni_moe.data.blocks import Array
from uni_moe.data.corpus import Corpus
from uni_moe.data.features import FeatureCache, FeatureStore, feature_folder
from uni_moe.data.media import Media, load
from uni_moe.errors import UniMoeError
from uni_moe.feature_key import encoder_facts
from uni_moe.machine import FeatureCacheSettings
from uni_moe.model.preparing import MediaPreparingMixin
from uni_moe.model.towers import TowersMixin
from uni_moe.progress import say
from uni_moe.recent import Recent
from uni_moe.records import MediaKind, MediaRef
from uni_moe.stage import StageContext

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_WORDS = {dtype: word for word, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class _Reader:
    """An encoder as it was when its features were computed, and where they are kept."""

    stamp: Hashable
    store: FeatureStore | None


class FeatureMaker:
    """Gives the features of media by content. Encoders are switched to their eval mode."""

    def __init__(
        self,
        towers: TowersMixin,
        processor: MediaPreparingMixin,
        settings: FeatureCacheSettings | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        """Without a cache, features are remembered and not kept."""
        self.towers, self.processor, self.cache = towers, processor, cache
        self.settings = settings or FeatureCacheSettings()
        self.counts: Counter[str] = Counter()  # how often features were encoded and read
        self.encode_s = 0.0  # how long encoders were at work
        self._recent: Recent[Hashable, Tensor] = Recent(self.settings.memory_bytes)
        self._readers: dict[MediaKind, _Reader] = {}
        for tower in towers.towers():
            tower.eval()

    def features(self, ref: MediaRef, corpus: Corpus) -> tuple[Tensor, int]:
        """Return what the encoder says of one medium, on the CPU, and the positions it takes.

        Shapes: see `TowersMixin.encode`, with N = 1 for a picture or film.
        """
        found = self._held(ref)
        if found is None:
            found = self._computed(ref, corpus)
        return found, self.processor.rows_each(ref.kind) * len(found)

    def share(self, refs: Iterable[MediaRef]) -> None:
        """Let other processes see what was computed here, where they may need one of these media.

        Once for all: in a training's first epoch nothing is needed twice, at its end everything.
        """
        if any(self._gathers(ref) for ref in refs):
            self.publish()

    def publish(self) -> None:
        """Let other processes see what was computed here so far."""
        for reader in self._readers.values():
            if reader.store is not None:
                reader.store.publish()

    def _gathers(self, ref: MediaRef) -> bool:
        reader = self._readers.get(ref.kind)
        return reader is not None and reader.store is not None and reader.store.gathers(ref.content)

    def _held(self, ref: MediaRef) -> Tensor | None:
        """Return features that are remembered or kept, None where they have to be computed."""
        reader = self._reader(ref.kind)
        found = self._recent.get((reader.stamp, ref.content))
        if reader.store is None:
            return found
        if found is not None:
            reader.store.tick()
            return found
        array = reader.store.get(ref.content)
        if array is None:
            return None
        self.counts["read"] += 1
        found = torch.frombuffer(array.data, dtype=_DTYPES[array.dtype]).view(array.shape)
        self._recent.put((reader.stamp, ref.content), found, found.nbytes)
        return found

    def _computed(self, ref: MediaRef, corpus: Corpus) -> Tensor:
        reader = self._reader(ref.kind)
        ready = self.processor.prepare(ref.kind, self._load(ref, corpus))
        device = next(self.towers.tower(ref.kind).parameters()).device
        padding = None if ready.padding is None else ready.padding.to(device)
        began = time.monotonic()
        found = self.towers.encode(ref.kind, ready.values.to(device), padding)
        found = found.cpu().contiguous()
        self.encode_s += time.monotonic() - began
        self.counts["encoded"] += 1
        if reader.store is not None:
            data = found.flatten().view(torch.uint8).numpy().data
            reader.store.put(ref.content, Array(_WORDS[found.dtype], tuple(found.shape), data))
        self._recent.put((reader.stamp, ref.content), found, found.nbytes)
        return found

    def _load(self, ref: MediaRef, corpus: Corpus) -> Media:
        return load(ref, corpus.media(ref), video_frames=self.processor.video_frames)

    def _reader(self, kind: MediaKind) -> _Reader:
        """Return a kind's encoder; one that was moved, cast or loaded anew is another."""
        first = next(self.towers.tower(kind).parameters())
        assert first.numel(), "an engine has partitioned the encoders: see `towers_aside`"
        stamp = (kind, routes.current(), first.dtype, first.data_ptr(), first._version)  # noqa: SLF001
        if kind not in self._readers or self._readers[kind].stamp != stamp:
            self.publish()
            self._readers[kind] = _Reader(stamp, self._store(kind))
        return self._readers[kind]

    def _store(self, kind: MediaKind) -> FeatureStore | None:
        if self.cache is None or not getattr(self.settings, kind):
            return None
        return self.cache.store(kind, encoder_facts(kind, self.towers, self.processor))


@contextmanager
def open_features(
    ctx: StageContext, towers: TowersMixin, processor: MediaPreparingMixin
) -> Iterator[FeatureMaker]:
    """Make features for a stage, with its workspace's cache; the run tells what became of it."""

    def tell(trouble: UniMoeError) -> None:
        ctx.run.event("feature_cache", trouble=str(trouble))
        say(f"warning: {trouble}")

    settings = ctx.machine.features
    cache = FeatureCache(feature_folder(ctx.layout, settings), settings, tell)
    maker = FeatureMaker(towers, processor, settings, cache)
    try:
        yield maker
    finally:
        maker.publish()
        ctx.run.event("features", written_bytes=cache.written_bytes, **maker.counts)
