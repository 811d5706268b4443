"""A tiny dense model in a folder, and others in the published layout."""

import pytest
import torch
from transformers import LlamaConfig

from tests.unit.checkpoints.published import model_that_hears
from uni_moe.checkpoints.published_export import export_published
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration


@pytest.fixture
def dense(tmp_path):
    torch.manual_seed(0)
    config = UniMoeConfig(
        LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    )
    model = UniMoeForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path / "dense")
    return tmp_path / "dense", model


def load(folder):
    return UniMoeForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture
def published(tmp_path):
    """Return a folder in the published layout and the model that it was made of."""

    def make(what="speech", style="experts", **changed):
        model = model_that_hears(what, **changed)
        model.save_pretrained(tmp_path / "ours")
        export_published(tmp_path / "ours", tmp_path / "published", style=style)
        return tmp_path / "published", model

    return make
