"""What learns, counted by hand on a tiny network and on the paper's largest."""

import time

import pytest
from transformers import LlamaConfig

from uni_moe.config import load_params
from uni_moe.model.config import UniMoeConfig
from uni_moe.train.conversations import sight_of
from uni_moe.train.learning import dense, learning_of, phase_learning
from uni_moe.train.planned import planned_config
from uni_moe.workspace import recipe_file

D, INNER, V, LAYERS, R, E = 8, 12, 20, 3, 2, 4  # width, inner, words, layers, rank, experts
LAYER = 4 * D * D + 2 * D  # attention and two norms
FEED_FORWARD = 3 * D * INNER


def tiny(sparse=()):
    return UniMoeConfig(
        LlamaConfig(
            vocab_size=V,
            hidden_size=D,
            intermediate_size=INNER,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            num_key_value_heads=2,
        ),
        sparse_layers=sparse,
        num_experts=E,
    )


def test_adapters_of_feed_forwards_by_hand():
    found = learning_of(tiny(), ["lora.feed_forward"], rank=R, layers=[0, 2])
    by_hand = 2 * 3 * R * (D + INNER)
    assert found.parts == {"lora.feed_forward": by_hand}
    assert found.weights.by_layer == (by_hand // 2, 0, by_hand // 2)
    assert found.weights.frozen == 2 * V * D + D + LAYERS * (LAYER + FEED_FORWARD)
    assert found.parameters == found.weights.frozen + by_hand


def test_a_mixtures_parts_by_hand():
    parts = ["lora.attention", "lora.experts", "router"]
    found = learning_of(tiny([1]), parts, rank=R, layers=[1])
    assert found.parts == {
        "lora.attention": LAYERS * 4 * R * (D + D),
        "lora.experts": E * R * ((D + 2 * INNER) + (INNER + D)),
        "router": E * D,
    }
    assert found.weights.experts == E * FEED_FORWARD
    assert found.weights.learning_experts == found.parts["lora.experts"]
    assert found.weights.per_mixture == E
    assert found.weights.trained == sum(found.parts.values()) == sum(found.weights.by_layer)
    assert found.weights.largest == 2 * INNER * E * R  # an adapter's second factor


def test_all_of_a_language_model_learns_its_head_too():
    found = learning_of(tiny(), ["language"], rank=None, layers=[])
    assert found.weights.head == V * D
    assert found.weights.by_layer == (LAYER + FEED_FORWARD,) * LAYERS
    assert found.weights.frozen == 0


@pytest.mark.parametrize(
    ("stage", "encoder"), [("align@audio", "audio"), ("experts@video", "image")]
)
def test_phases_before_the_assembly_have_the_encoders_they_see(stage, encoder):
    params = load_params(recipe_file("playground"))
    config = dense(planned_config(params, recipe_file("playground").parent), sight_of(stage))
    kinds = {"image": config.vision_config, "audio": config.audio_config}
    assert [kind for kind, there in kinds.items() if there is not None] == [encoder]
    assert config.speech_config is None
    assert config.sparse_layers == []


def test_the_papers_largest_model_is_counted_in_seconds():
    params, file = load_params(recipe_file("paper-8-all")), recipe_file("paper-8-all")
    begin = time.monotonic()
    found = phase_learning(params.tune, planned_config(params, file.parent), params.model)
    assert time.monotonic() - begin < 30
    assert found.weights.experts == 32 * 8 * 3 * 4096 * 11008
    assert found.parts["router"] == 32 * 8 * 4096
    assert found.parameters > 37e9
