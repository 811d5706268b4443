"""The products that oneDNN compiles, against what it said of the recipe smoke's `tune`."""

from uni_moe.config import load_params
from uni_moe.train.compiled import EACH_BYTES, KEPT, UNUSED_BYTES, Shapes, compiled_bytes
from uni_moe.train.learning import phase_learning
from uni_moe.train.planned import planned_config
from uni_moe.workspace import recipe_file

SHAPES = Shapes(
    positions=11,
    labels=8,
    groups=26,
    media={"audio": 5, "speech": 3, "image": 5},
    visited=547,
    batches=12,
)
SAID = 832  # create:cache_miss lines of that run, with ONEDNN_VERBOSE=profile_create


def network(tmp_path):
    params = load_params(recipe_file("smoke"))
    return phase_learning(params.tune, planned_config(params, tmp_path), params.model).network


def count(tmp_path, shapes, *, validated=5, plain=True, pad_rows=8):
    found = compiled_bytes(
        network(tmp_path), shapes, validated=validated, plain=plain, pad_rows=pad_rows
    )
    return found / EACH_BYTES


def test_as_many_products_are_counted_as_onednn_says(tmp_path):
    assert 0.9 * SAID < count(tmp_path, SHAPES) < 1.1 * SAID


def test_fused_attention_compiles_no_products_of_groups(tmp_path):
    without = count(tmp_path, SHAPES, validated=0, plain=False)
    assert count(tmp_path, SHAPES, validated=0) - without == 6 * 26


def test_no_more_are_kept_than_there_is_room_for(tmp_path):
    many = Shapes(positions=1000, labels=1000, groups=1000, visited=5000, batches=1000)
    found = compiled_bytes(network(tmp_path), many, validated=5, plain=True, pad_rows=8)
    assert found == KEPT * (EACH_BYTES + UNUSED_BYTES)
