"""Tiny encoders of the real kinds (CLIP, Whisper, BEATs) and the learner that trains one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedModel,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from uni_moe.config import EncoderTraining
from uni_moe.errors import ConfigError
from uni_moe.model.encoders.beats import Beats, BeatsConfig
from uni_moe.model.encoders.beats_features import RATE_HZ, filterbank, windows
from uni_moe.platform import device
from uni_moe.train.batches import MicroBatch, StepLoss, whole_step
from uni_moe.train.objectives import (
    Batch,
    CaptionObjective,
    ContrastObjective,
    ReconstructObjective,
    Views,
    Words,
)
from uni_moe.train.pool import Pool
from uni_moe.train.views import PictureViews, SpectrogramViews

POSITION_GAIN = 10.0


@dataclass(frozen=True)
class TinyEncoder:
    """An untrained encoder with everything its training needs."""

    module: PreTrainedModel
    encode: Callable[[Tensor], Tensor]  # prepared media (B, …) -> features (B, N, D)
    prepare: Callable[[Any], Tensor]  # one decoded medium -> prepared
    extractor: Any  # the preprocessor, saved beside the weights; None where the config says it all
    views: Views
    patch: int  # numbers in one patch
    width: int


def tiny_image(shape: Mapping[str, int]) -> TinyEncoder:
    """Build a small CLIP vision tower. Its features are the last hidden state's patches."""
    size, patch = shape["image_size"], shape["patch_size"]
    module = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=shape["width"],
            intermediate_size=2 * shape["width"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            image_size=size,
            patch_size=patch,
            projection_dim=shape["width"],
        )
    )
    # CLIP starts with positions far weaker than patches; a short training needs them heard.
    with torch.no_grad():
        module.embeddings.position_embedding.weight.mul_(POSITION_GAIN)
    extractor = CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )

    def encode(x: Tensor) -> Tensor:
        out = module(pixel_values=x, output_hidden_states=True)
        return out.hidden_states[-1][:, 1:]

    def prepare(image: Any) -> Tensor:  # noqa: ANN401 - a Pillow image
        return extractor(image, return_tensors="pt")["pixel_values"][0]

    return TinyEncoder(
        module,
        encode,
        prepare,
        extractor,
        PictureViews(patch),
        3 * patch * patch,
        shape["width"],
    )


def tiny_speech(shape: Mapping[str, int]) -> TinyEncoder:
    """Build a small Whisper encoder over windows of `window_s` seconds."""
    window_s, bins = shape["window_s"], shape["mel_bins"]
    module = WhisperEncoder(
        WhisperConfig(
            d_model=shape["width"],
            encoder_layers=shape["layers"],
            encoder_attention_heads=shape["heads"],
            encoder_ffn_dim=2 * shape["width"],
            num_mel_bins=bins,
            max_source_positions=50 * window_s,
            dropout=0.0,
        )
    )
    extractor = WhisperFeatureExtractor(feature_size=bins, chunk_length=window_s)

    def encode(x: Tensor) -> Tensor:
        return module(x).last_hidden_state

    def prepare(sound: np.ndarray) -> Tensor:
        first = sound[: window_s * RATE_HZ]
        return extractor(first, sampling_rate=RATE_HZ, return_tensors="pt")["input_features"][0]

    views = SpectrogramViews(2, patch_frames=2, patch_bins=None)
    return TinyEncoder(module, encode, prepare, extractor, views, 2 * bins, shape["width"])


def tiny_audio(shape: Mapping[str, int]) -> TinyEncoder:
    """Build a small BEATs encoder over windows of `window_s` seconds."""
    width, size, window_s = shape["width"], 16, shape["window_s"]
    module = Beats(
        BeatsConfig(
            input_patch_size=size,
            embed_dim=width,
            encoder_layers=shape["layers"],
            encoder_embed_dim=width,
            encoder_ffn_embed_dim=2 * width,
            encoder_attention_heads=shape["heads"],
            num_buckets=32,
            max_distance=128,
            conv_pos=16,
            conv_pos_groups=4,
        )
    )

    def prepare(sound: np.ndarray) -> Tensor:
        return filterbank(windows(sound, window_s)[0][0])

    views = SpectrogramViews(1, patch_frames=size, patch_bins=size)
    return TinyEncoder(module, module, prepare, None, views, size * size, width)


TINY: Mapping[str, Callable[[Mapping[str, int]], TinyEncoder]] = {
    "image": tiny_image,
    "audio": tiny_audio,
    "speech": tiny_speech,
}


class EncoderLearner:
    """Trains a tiny encoder on a pool of media by the objectives that params name."""

    def __init__(
        self, encoder: TinyEncoder, plan: EncoderTraining, pool: Pool, held_out: Pool, seed: int
    ) -> None:
        self.pool, self.held_out, self.seed = pool, held_out, seed
        self.batch_size = plan.batch_size
        if "caption" in plan.objectives and not pool.captioned:
            raise ConfigError(
                "The objective `caption` has no caption to learn from.",
                cause="no training sample of this kind has a caption or transcript.",
                remedy="take `caption` out of the encoder's objectives in params.yaml; "
                "`reconstruct` and `contrast` need none.",
            )
        self.words = pool.words()
        self.module = EncoderWithHeads(encoder, plan, len(self.words))

    def micro_batches(self, step: int, rank: int, ranks: int) -> list[MicroBatch]:
        """Return a step, computed at once: a tiny encoder learns in one process."""
        assert (rank, ranks) == (0, 1)
        return whole_step(self.batch(step), self.batch_size)

    def batch(self, step: int) -> Batch:
        """Draw media with replacement: a pure function of the seed and the step.

        Where captions are learned beside something else, half of a batch has captions, however
        many media have none.
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        with_caption = self.batch_size if self.module.names == ("caption",) else 0
        if "caption" in self.module.names and not with_caption:
            with_caption = self.batch_size // 2
        picks = _draw(self.pool.captioned, with_caption, generator)
        picks += _draw(range(len(self.pool.media)), self.batch_size - with_caption, generator)
        return self._batch(self.pool, picks, step)

    def validate(self) -> dict[str, float]:
        """Return the objectives' mean loss on the validation split's media.

        A held-out caption may have no word that training knows; it says nothing then.
        """
        self.module.eval()
        chosen = list(range(len(self.held_out.media)))
        if self.module.names == ("caption",):
            captions = self.held_out.captions
            chosen = [i for i in self.held_out.captioned if self.words.know(captions[i] or "")]
        if not chosen:
            return {}
        with torch.no_grad():
            loss = self.module(self._batch(self.held_out, chosen[:256], 0)).total
        return {"all": float(loss)}

    def _batch(self, pool: Pool, picks: Sequence[int], step: int) -> Batch:
        captions = [pool.captions[i] or "" for i in picks]
        ids = self.words.encode(captions) if "caption" in self.module.names else None
        place = device()
        media = pool.media[list(picks)].to(place)
        return Batch(media, None if ids is None else ids.to(place), self.seed * 7_919 + step)


class EncoderWithHeads(nn.Module):
    """An encoder and the throw-away heads of its objectives; called with a batch, gives a loss."""

    def __init__(self, encoder: TinyEncoder, plan: EncoderTraining, words: int) -> None:
        super().__init__()
        self.encoder = encoder.module
        self.names = plan.objectives
        self._encode, self._views = encoder.encode, encoder.views
        makers: dict[str, Callable[[], nn.Module]] = {
            "caption": lambda: CaptionObjective(encoder.width, words, plan.variation["caption"]),
            "reconstruct": lambda: ReconstructObjective(encoder.width, encoder.patch),
            "contrast": lambda: ContrastObjective(encoder.width, plan.variation["contrast"]),
        }
        self.heads = nn.ModuleDict({name: makers[name]() for name in self.names})

    def forward(self, batch: Batch) -> StepLoss:
        """Return the sum of the objectives' losses. Media without caption train no caption."""
        losses = {}
        for name, head in self.heads.items():
            seen = _captioned(batch) if name == "caption" else batch
            if seen is not None:
                losses[name] = head(self._encode, seen, self._views)
        total = torch.stack(list(losses.values())).sum()
        return StepLoss(total, {name: (float(loss.detach()), 1.0) for name, loss in losses.items()})


def _draw(choices: Sequence[int], count: int, generator: torch.Generator) -> list[int]:
    if not count:
        return []
    places = torch.randint(len(choices), (count,), generator=generator).tolist()
    return [choices[place] for place in places]


def _captioned(batch: Batch) -> Batch | None:
    """Return the batch's media that have a caption, None where there are none."""
    assert batch.captions_BL is not None
    keep = (batch.captions_BL != Words.PAD).sum(1) > 2  # the two marks alone are no caption
    if not keep.any():
        return None
    return Batch(batch.media[keep], batch.captions_BL[keep], batch.seed)
