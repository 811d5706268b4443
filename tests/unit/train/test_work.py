"""Operations of a step against a count by hand."""

import pytest
import torch
from transformers import LlamaConfig

from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.train.work import device_peak, peak_flops, work_of

WIDTH, INNER, LAYERS, VOCABULARY = 8, 12, 2, 40
ATTENTION = 4 * WIDTH * WIDTH
NORMS = 2 * WIDTH
FEED_FORWARD = 3 * WIDTH * INNER


def network(sparse=()):
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return UniMoeForConditionalGeneration(UniMoeConfig(text, sparse_layers=sparse, num_experts=5))


def test_a_frozen_weight_costs_four_and_one_that_learns_six():
    model = network().requires_grad_(requires_grad=False)
    weights = LAYERS * (ATTENTION + NORMS + FEED_FORWARD) + WIDTH
    found = work_of(model)
    assert found.flops_per_position == 4 * weights
    assert found.flops_per_label == 4 * WIDTH * VOCABULARY
    model.language_model.model.layers[0].mlp.requires_grad_(requires_grad=True)
    assert work_of(model).flops_per_position == 4 * weights + 2 * FEED_FORWARD
    assert found.of(10, 3) == 10 * found.flops_per_position + 3 * found.flops_per_label


def test_of_a_mixture_only_the_visited_experts_cost():
    model = network(sparse=[0]).requires_grad_(requires_grad=False)
    mixture = 2 * FEED_FORWARD + 5 * WIDTH
    weights = LAYERS * (ATTENTION + NORMS) + FEED_FORWARD + mixture + WIDTH
    assert work_of(model).flops_per_position == pytest.approx(4 * weights)


@pytest.mark.skipif(torch.cuda.is_available(), reason="an accelerator's peak is looked up")
def test_a_processors_peak_is_measured_and_draws_no_random_number():
    before = torch.get_rng_state()
    assert device_peak("float32") > 1e8
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "float32", "bfloat16"),
    [
        ("NVIDIA H200", 67e12, 989e12),
        ("NVIDIA H200 NVL", 60e12, 835.5e12),
        ("NVIDIA H100 80GB HBM3", 67e12, 989e12),
        ("NVIDIA H100 PCIe", 51e12, 756.5e12),
        ("NVIDIA A100-SXM4-80GB", 19.5e12, 312e12),
        ("NVIDIA L40S", 91.6e12, 362e12),
        ("NVIDIA L4", 30.3e12, 121e12),
        ("Someone's device", None, None),
    ],
)
def test_the_peaks_of_known_devices(name, float32, bfloat16):
    assert peak_flops(name, "float32") == float32
    assert peak_flops(name, "bfloat16") == bfloat16
