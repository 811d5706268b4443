"""The sizes of the published parts, on the meta device."""

import pytest

from uni_moe.model.architectures import ARCHITECTURES, size_of
from uni_moe.model.config import UniMoeConfig

QUERY = {"query_tokens": 50, "layers": 12, "width": 768, "heads": 12, "intermediate_size": 3072}


def test_a_dense_network_activates_all_of_it():
    size = size_of(UniMoeConfig(ARCHITECTURES["vicuna-7b-v1.5"]()))
    assert size.language == size.activated
    assert size.language / 1e9 == pytest.approx(6.7, abs=0.1)


def test_the_published_ears():
    config = UniMoeConfig(
        ARCHITECTURES["vicuna-7b-v1.5"](),
        audio_config=ARCHITECTURES["BEATs_iter3_plus_AS2M"](),
        audio_connector=QUERY,
    )
    size = size_of(config)
    assert size.encoders / 1e6 == pytest.approx(90.4, abs=0.1)
    projection = 768 * 4096 + 4096
    assert (size.connectors - projection) / 1e6 == pytest.approx(99.2, abs=0.1)
