"""The sizes of the paper's table 1 and of the published ears, on the meta device."""

import pytest

from uni_moe.model.architectures import ARCHITECTURES, size_of
from uni_moe.model.config import UniMoeConfig

QUERY = {"query_tokens": 50, "layers": 12, "width": 768, "heads": 12, "intermediate_size": 3072}


@pytest.mark.parametrize(
    ("layout", "experts", "total", "activated"),
    [
        ("interval", 4, 13.2, 8.9),
        ("all", 4, 19.7, 11.1),
        ("interval", 8, 21.9, 8.9),
        ("all", 8, 37.0, 11.1),
    ],
)
def test_the_papers_sizes(layout, experts, total, activated):
    language = ARCHITECTURES["llama-7b"]()
    config = UniMoeConfig(language, sparse_layers=layout, num_experts=experts)
    size = size_of(config)
    assert size.language / 1e9 == pytest.approx(total, abs=0.1)
    assert size.activated / 1e9 == pytest.approx(activated, abs=0.1)


def test_a_dense_network_activates_all_of_it():
    size = size_of(UniMoeConfig(ARCHITECTURES["llama-7b"]()))
    assert size.language == size.activated
    assert size.language / 1e9 == pytest.approx(6.7, abs=0.1)


def test_the_published_ears():
    config = UniMoeConfig(
        ARCHITECTURES["llama-7b"](),
        audio_config=ARCHITECTURES["beats-iter3-plus"](),
        audio_connector=QUERY,
    )
    size = size_of(config)
    assert size.encoders / 1e6 == pytest.approx(90.4, abs=0.1)
    projection = 768 * 4096 + 4096
    assert (size.connectors - projection) / 1e6 == pytest.approx(99.2, abs=0.1)
