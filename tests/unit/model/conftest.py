"""A tiny network with every part, and media to show it."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from uni_moe.model.config import UniMoeConfig
from uni_moe.model.encoders.beats import BeatsConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.train.tokenizer import train_tokenizer

torch.set_num_threads(1)
QUERY = {
    "query_tokens": 4,
    "layers": 2,
    "width": 32,
    "heads": 4,
    "intermediate_size": 64,
    "window_s": 1,
}


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(["USER: what is it? ASSISTANT: a red cat"] * 3, vocab_size=280)


@pytest.fixture
def config(tokenizer):
    return UniMoeConfig(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=16,
            patch_size=8,
        ),
        WhisperConfig(
            d_model=32,
            encoder_layers=2,
            encoder_attention_heads=4,
            encoder_ffn_dim=64,
            num_mel_bins=80,
            max_source_positions=50,
        ),
        BeatsConfig(
            embed_dim=16,
            encoder_layers=2,
            encoder_embed_dim=32,
            encoder_ffn_embed_dim=64,
            encoder_attention_heads=4,
            num_buckets=32,
            max_distance=80,
            conv_pos=16,
            conv_pos_groups=4,
        ),
        sparse_layers=[0],
        num_experts=4,
        speech_connector=QUERY,
        audio_connector=QUERY,
        frame_time_embedding=True,
        standardize_features=True,
    )


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    return UniMoeForConditionalGeneration(config).eval()


@pytest.fixture
def processor(config, tokenizer):
    return UniMoeProcessor.for_model(
        config,
        tokenizer=tokenizer,
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        feature_extractor=WhisperFeatureExtractor(feature_size=80, chunk_length=1),
        system_prompt="",
    )


@pytest.fixture
def media():
    noise = np.random.default_rng(0).normal(size=20_000).astype(np.float32) * 0.1
    return {
        "image": Image.new("RGB", (20, 20), (200, 10, 10)),
        "video": [Image.new("RGB", (20, 20), (30 * i, 10, 10)) for i in range(8)],
        "audio": noise,
        "speech": noise[:9_000],
    }


def conversation(*kinds, answer="a red cat"):
    user = [*({"type": kind} for kind in kinds), {"type": "text", "text": "\nwhat is it?"}]
    messages = [{"role": "user", "content": user}]
    if answer is not None:
        content = [{"type": "text", "text": answer}]
        messages.append({"role": "assistant", "content": content})
    return messages


@pytest.fixture
def talk():
    return conversation


LAYOUTS = (("image",), ("video",), ("audio", "speech"), (), ("image", "speech", "image"))


@pytest.fixture
def batch(processor, media):
    return processor(
        [conversation(*kinds) for kinds in LAYOUTS],
        [[(kind, media[kind]) for kind in kinds] for kinds in LAYOUTS],
    )
