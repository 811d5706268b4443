"""A small network with every part, and a learner whose only step is a layout.

Conversations, features and rows are made as a phase makes them, but for the frozen encoders: what
they would say is noise.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, WhisperConfig, WhisperFeatureExtractor

from benchmarks.drawn_layouts import StepLayout, Talk
from uni_moe.examples import Example, collate, pack
from uni_moe.lengths import Fitted
from uni_moe.model import adapters
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.encoders.beats import BeatsConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.parts import learn
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.records import MediaRef
from uni_moe.train.batches import MicroBatch, Seen
from uni_moe.train.learner import PhaseModule
from uni_moe.train.tokenizer import train_tokenizer

LEARNS = (
    "lora.attention",
    "lora.experts",
    "router",
    "connector.image",
    "projection.audio",
    "connector.speech",
    "modality_adapters",
)
_WORDS = ("what", "is", "it", "a", "red", "cat", "on", "the", "left")
_FRAMES, _SIDE, _ROWS = 2, 2, 2
_WIDTH = 16  # of pictures and speech; environmental sound has twice as much
_QUERY = {
    "query_tokens": _ROWS,
    "layers": 1,
    "width": 16,
    "heads": 2,
    "intermediate_size": 32,
    "window_s": 1,
}


def network() -> tuple[nn.Module, UniMoeProcessor]:
    """Return a network and its processor; of one connector the projection alone learns."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([" ".join(_WORDS)] * 3, vocab_size=280)
    config = UniMoeConfig(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            initializer_range=0.2,
        ),
        CLIPVisionConfig(
            hidden_size=_WIDTH,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=8 * _SIDE,
            patch_size=8,
        ),
        WhisperConfig(
            d_model=_WIDTH,
            encoder_layers=1,
            encoder_attention_heads=2,
            encoder_ffn_dim=32,
            num_mel_bins=80,
            max_source_positions=50,
        ),
        BeatsConfig(
            embed_dim=16,
            encoder_layers=1,
            encoder_embed_dim=2 * _WIDTH,
            encoder_ffn_embed_dim=32,
            encoder_attention_heads=4,
            num_buckets=32,
            max_distance=80,
            conv_pos=16,
            conv_pos_groups=4,
        ),
        sparse_layers=[0, 1],
        num_experts=8,
        experts_per_token=2,
        video_frames=_FRAMES,
        frame_time_embedding=True,
        modality_adapters=True,
        standardize_features=True,
        speech_connector=_QUERY,
        audio_connector=_QUERY,
    )
    processor = UniMoeProcessor.for_model(
        config,
        tokenizer=tokenizer,
        image_processor=None,
        feature_extractor=WhisperFeatureExtractor(feature_size=80, chunk_length=1),
        system_prompt="",
    )
    model = UniMoeForConditionalGeneration(config)
    wrapped = adapters.attach(model, LEARNS, layers=[0, 1], rank=2, alpha=4, dropout=0.0, seed=0)
    learn(wrapped, LEARNS)
    with torch.no_grad():  # second factors begin at zero, and with them the first have no gradient
        for name, parameter in wrapped.named_parameters():
            if ".lora_B." in name or ".experts." in name:
                parameter.normal_(std=0.2)
    return wrapped, processor


class LayoutLearner:
    """A learner whose only step is a layout."""

    def __init__(self, module: PhaseModule, layout: StepLayout, processor: UniMoeProcessor) -> None:
        self.module, self._layout, self._processor = module, layout, processor

    def micro_batches(self, step: int, rank: int, ranks: int) -> list[MicroBatch]:
        """Return a rank's share; conversations are counted over all ranks."""
        assert (step, ranks) == (0, len(self._layout.ranks))
        first = sum(len(row) for one in self._layout.ranks[:rank] for batch in one for row in batch)
        found = []
        for batch in self._layout.ranks[rank]:
            rows = []
            for row in batch:
                rows.append([self._example(talk, first + at) for at, talk in enumerate(row)])
                first += len(row)
            found.append(self._micro_batch(rows))
        return found

    def at_once(self) -> MicroBatch | None:
        """Return all conversations in padded rows of their own; None where there is none."""
        examples = [self._example(talk, at) for at, talk in enumerate(self._layout.talks)]
        if not examples:
            return None
        count = float(sum(one.fitted.tokens for one in examples))
        return MicroBatch(collate(self._processor, examples), count, len(examples))

    def validate(self) -> dict[str, float]:
        """There is nothing to validate on."""
        return {}

    def _micro_batch(self, rows: Sequence[Sequence[Example]]) -> MicroBatch:
        examples = [one for row in rows for one in row]
        inputs = (
            pack(self._processor, rows)
            if self._layout.packed or not rows
            else collate(self._processor, examples)
        )
        seen = tuple(
            Seen(at, str(at), str(at), one.modality, "drawn", one.fitted.tokens, 0)
            for at, one in enumerate(examples)
        )
        return MicroBatch(inputs, float(sum(one.tokens for one in seen)), len(seen), seen)

    def _example(self, talk: Talk, number: int) -> Example:
        """Make a conversation; its features are noise of its own."""
        words = " ".join(_WORDS[(number + at) % len(_WORDS)] for at in range(talk.words))
        user = [*({"type": kind} for kind in talk.media), {"type": "text", "text": words}]
        messages = [{"role": "user", "content": user}]
        if talk.answered:
            messages.append(
                {"role": "assistant", "content": [{"type": "text", "text": "a red cat"}]}
            )
        rows = [self._processor.rows_each(kind) for kind in talk.media]
        encoded = self._processor.encode(messages, rows)
        media = tuple(
            MediaRef(kind, f"{self._layout.seed} {number} {at}", (), 0)  # type: ignore[arg-type]
            for at, kind in enumerate(talk.media)
        )
        return Example(
            talk.media[0] if talk.media else "text", Fitted(encoded, len(rows), 0), media, noise
        )


def noise(ref: MediaRef) -> Tensor:
    """Return features of a medium, drawn from its name."""
    generator = torch.Generator().manual_seed(random.Random(ref.sha256).getrandbits(48))
    frames = (_FRAMES,) if ref.kind == "video" else ()
    width = 2 * _WIDTH if ref.kind == "audio" else _WIDTH
    return torch.randn(1, *frames, _SIDE**2, width, generator=generator)
