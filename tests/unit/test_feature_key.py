"""What features depend on: everything that changes a bit of them, and nothing else."""

from dataclasses import replace

import pytest
import torch

from tests.house.code_deps import import_graph
from tests.unit.evaluate.tiny_model import network
from uni_moe import routes
from uni_moe.feature_key import CODE, encoder_facts, weights_hash
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.preparing import MediaPreparingMixin
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.model.towers import TowersMixin
from uni_moe.records import MEDIA_KINDS
from uni_moe.train.pretrained import load_tower

TOWER = {"image": "vision_tower", "audio": "audio_tower", "speech": "speech_tower"}


@pytest.fixture
def parts():
    return network()


def all_facts(model, processor):
    return {kind: encoder_facts(kind, model, processor) for kind in MEDIA_KINDS}


def changed(parts, change):
    """Return the kinds whose facts a change changes."""
    before = all_facts(*parts)
    change(*parts)
    after = all_facts(*parts)
    return {kind for kind in MEDIA_KINDS if before[kind] != after[kind]}


def test_a_network_that_was_saved_and_loaded_has_the_same_facts(parts, tmp_path):
    model, processor = parts
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = UniMoeForConditionalGeneration.from_pretrained(tmp_path)
    assert all_facts(again, UniMoeProcessor.from_pretrained(tmp_path)) == all_facts(*parts)


@pytest.mark.parametrize("part", TOWER)
def test_an_encoder_of_the_foundation_is_the_networks(parts, tmp_path, part):
    model, processor = parts
    getattr(model, TOWER[part]).save_pretrained(tmp_path)
    alone = TowersMixin()
    alone.config = model.config
    setattr(alone, TOWER[part], load_tower(part, tmp_path))
    assert encoder_facts(part, alone, processor) == encoder_facts(part, model, processor)


def test_facts_without_change_stay(parts):
    assert changed(parts, lambda *_: None) == set()


@pytest.mark.parametrize(
    "name, kinds",
    [
        ("vision_tower", {"image", "video"}),
        ("audio_tower", {"audio"}),
        ("speech_tower", {"speech"}),
        ("language_model", set()),
        ("image_connector", set()),
        ("speech_connector", set()),
    ],
)
def test_one_bit_of_an_encoders_weights_is_another_encoder(parts, name, kinds):
    def change(model, _):
        last = list(getattr(model, name).parameters())[-1]
        with torch.no_grad():
            last.view(torch.int32).flatten()[-1] ^= 1

    assert changed(parts, change) == kinds


@pytest.mark.parametrize(
    "place, value, kinds",
    [
        ("model.config.vision_select_layer", -1, {"image", "video"}),
        ("model.vision_tower.config.hidden_act", "gelu", {"image", "video"}),
        ("model.speech_tower.config._attn_implementation", "eager", {"speech"}),
        ("processor.image_processor.image_mean", [0.5, 0.5, 0.5], {"image", "video"}),
        ("processor.video_frames", 4, {"video"}),
        ("processor.audio_window_s", 2, {"audio"}),
        ("processor.mel_bins", 64, {"audio"}),
        ("processor.speech_window_s", 2, {"speech"}),
        ("processor.feature_extractor.hop_length", 80, {"speech"}),
        ("processor.audio_rows", 7, set()),
        ("processor.system_prompt", "hello", set()),
        ("model.config.name_or_path", "elsewhere", set()),
        ("model.vision_tower.config.name_or_path", "elsewhere", set()),
    ],
)
def test_facts_hold_the_settings_that_change_bits(parts, place, value, kinds):
    def change(model, processor):
        (first, *between), last = place.split(".")[:-1], place.split(".")[-1]
        found = {"model": model, "processor": processor}[first]
        for name in between:
            found = getattr(found, name)
        setattr(found, last, value)

    assert changed(parts, change) == kinds


def test_a_cast_encoder_is_another(parts):
    assert changed(parts, lambda model, _: model.vision_tower.half()) == {"image", "video"}


def test_modes_change_nothing(parts):
    assert changed(parts, lambda model, _: model.train()) == set()


def test_threads_count(parts):
    before = torch.get_num_threads()
    try:
        assert changed(parts, lambda *_: torch.set_num_threads(before + 1)) == set(MEDIA_KINDS)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "name, other, counts",
    [
        ("matmul", "onednn", True),
        ("attention", "plain", True),
        ("experts", "grouped", False),
        ("elementwise", "native", False),
        ("allocator", "keep", False),
    ],
)
def test_routes_that_an_encoder_takes_count(parts, name, other, counts):
    before = all_facts(*parts)
    routes.use(replace(routes.current(), **{name: other}))
    assert (all_facts(*parts) != before) == counts


def test_the_code_between_a_file_and_its_features_counts():
    graph = import_graph()
    computing = set(CODE) - {"uni_moe.feature_maker"}  # it brings both sides together
    used = computing.union(*(graph.find_upstream_modules(name) for name in computing))
    carries_no_number_of_a_feature = {
        "uni_moe.errors",
        "uni_moe.records",
        "uni_moe.model.config",
    }
    assert UniMoeProcessor.prepare is MediaPreparingMixin.prepare
    assert used - computing == carries_no_number_of_a_feature
    assert graph.find_modules_directly_imported_by("uni_moe.feature_maker") & used <= {
        *CODE,
        "uni_moe.errors",
        "uni_moe.records",
    }


def test_a_weights_hash_knows_names_types_and_shapes():
    def hash_of(tensor, name="a"):
        module = torch.nn.Module()
        module.register_buffer(name, tensor)
        return weights_hash(module)

    values = torch.zeros(2, 4)
    same = hash_of(values.clone())
    others = [values.view(4, 2), values.to(torch.int32), values + 1, torch.zeros(()), values[:0]]
    assert hash_of(values) == same == hash_of(values.t().contiguous().t())
    assert len({same, hash_of(values, "b"), *map(hash_of, others)}) == 7
