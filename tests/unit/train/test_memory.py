"""The memory of a rank, as tables: what stands by ZeRO stage, and the busiest moment of a step."""

import pytest

from uni_moe.train.activations import Kept
from uni_moe.train.memory import (
    BUCKET,
    FETCHED,
    PARTS,
    Around,
    Ranks,
    heap_share,
    host_memory_of,
    memory_of,
    standing,
)
from uni_moe.train.sizes import Weights

SMALL = standing(Weights(0, 0), Ranks())["engine"]
W = Weights(frozen=1000, trained=100, towers=200)
NOTHING = Kept((), (), (), head=0, logits=0, connectors=0, features=0)

# stage, ranks, precision -> frozen, trained, gradients, optimizer, engine beyond its own
STANDING = [
    (0, 1, "float32", 4000, 400, 0, 800, 0),
    (0, 4, "float32", 4000, 400, 0, 800, 0),
    (1, 1, "float32", 4000, 400, 0, 1200, 0),
    (1, 4, "float32", 4000, 400, 0, 300, 0),
    (2, 4, "float32", 4000, 400, 0, 300, 0),
    (3, 1, "float32", 4000, 400, 400, 1200, 400),
    (3, 4, "float32", 4 * 200 + 800, 100, 100, 300, 400),
    (0, 1, "bfloat16", 2000, 400, 0, 800, 0),  # what learns is float32 always
    (2, 4, "bfloat16", 2000, 400, 0, 300, 0),
    (3, 4, "bfloat16", 2 * 200 + 400, 100, 100, 300, 400),
    (3, 3, "float32", 4 * 267 + 800, 4 * 34, 4 * 34, 12 * 34, 400),  # shares are equal: rounded up
]


@pytest.mark.parametrize(
    ("stage", "world", "precision", "frozen", "trained", "gradients", "optimizer", "engine"),
    STANDING,
)
def test_what_stands_between_two_steps(
    stage, world, precision, frozen, trained, gradients, optimizer, engine
):
    found = standing(W, Ranks(world, stage, precision=precision))
    assert found == {
        "frozen": frozen,
        "trained": trained,
        "gradients": gradients,
        "optimizer": optimizer,
        "engine": SMALL + engine,
    }


@pytest.mark.parametrize(
    ("stage", "world", "precision", "reduction", "update"),
    [  # bytes beside what stands: gradients and copies of them, sent and taken in
        (0, 1, "float32", 400 + 400, 400),
        (0, 2, "float32", 400 + 400, 400),
        (1, 2, "float32", 400 + 400, 200 + 200),
        (2, 2, "float32", 400 + 400, 200 + 200),
        (3, 1, "float32", 400 + 400, 400),
        (3, 2, "float32", 400 + 900 * 4, 200),
        (1, 2, "bfloat16", 400 + 400, 200 + 200),
    ],
)
def test_what_sending_and_taking_in_gradients_needs(stage, world, precision, reduction, update):
    ranks = Ranks(world, stage, precision=precision)
    stands = sum(standing(W, ranks).values())
    moments = memory_of(W, NOTHING, ranks).moments
    assert moments["reduction"] - stands == reduction
    assert moments["update"] - stands == update


def test_the_busiest_moment_is_found_and_its_parts_add_up():
    kept = Kept(
        (100, 200, 300), (10, 10, 10), (0, 0, 0), head=7, logits=50, connectors=3, features=9
    )
    weights = Weights(frozen=100, trained=30, by_layer=(10, 10, 10))
    memory = memory_of(weights, kept, Ranks(), around=Around(process=1000))
    assert memory.moment == "loss"
    assert memory.parts["activations"] == 600 + 7 + 3
    assert memory.parts["logits"] == 3 * 50
    assert memory.parts["features"] == 9
    assert memory.parts["process"] == 1000
    assert tuple(memory.parts) == PARTS
    assert memory.needed == sum(memory.parts.values()) == memory.moments["loss"]


def test_the_way_back_trades_activations_for_gradients():
    kept = Kept((100, 100), (0, 0), (0, 0), head=0, logits=0, connectors=0, features=0)
    weights = Weights(frozen=0, trained=1000, by_layer=(500, 400), head=100)
    memory = memory_of(weights, kept, Ranks())
    # the first layer's way back: its own activations, the gradients of what lies above
    assert memory.moments["backward"] - sum(standing(weights, Ranks()).values()) == 100 + 4 * 500
    assert memory.moment == "reduction"


def test_checkpointed_layers_are_computed_again_one_by_one():
    kept = Kept((10, 10), (1, 2), (100, 200), head=0, logits=0, connectors=0, features=0)
    memory = memory_of(Weights(0, 0, by_layer=(0, 0)), kept, Ranks())
    assert memory.moments["backward"] - SMALL == 10 + 10 + 200 + 2


@pytest.mark.parametrize(("stage", "waiting"), [(0, 400), (1, 400), (2, 200), (3, 0)])
def test_gradients_wait_while_further_micro_batches_compute(stage, waiting):
    ranks = Ranks(2, stage)
    once, twice = (memory_of(W, NOTHING, ranks, batches=n).moments["loss"] for n in (1, 2))
    assert twice - once == waiting


def test_spread_experts_are_a_ranks_share_and_nothing_else_is():
    weights = Weights(frozen=1000, trained=100, experts=800, learning_experts=60, per_mixture=4)
    found = memory_of(weights, NOTHING, Ranks(4, 0, expert_parallel=4)).parts
    assert found["frozen"] == 4 * (200 + 200)
    assert found["trained"] == 4 * (40 + 15)
    assert found["optimizer"] == 2 * found["trained"]


def test_the_first_rank_holds_most_of_experts_that_do_not_divide():
    weights = Weights(frozen=1000, trained=100, experts=800, learning_experts=60, per_mixture=5)
    found = memory_of(weights, NOTHING, Ranks(2, 0, expert_parallel=2)).parts
    assert found["frozen"] == 4 * (200 + 800 * 3 // 5)
    assert found["trained"] == 4 * (40 + 60 * 3 // 5)


def test_an_accelerator_has_its_rooms_whole():
    moments = {
        on: memory_of(W, NOTHING, Ranks(2, 2, accelerator=on)).moments["reduction"]
        for on in (False, True)
    }
    assert moments[True] - moments[False] == 4 * (BUCKET - 100)


@pytest.mark.parametrize(("accelerator", "beside"), [(False, 0), (True, 1200)])
def test_on_an_accelerator_a_flat_copy_stands_beside_what_activations_had(accelerator, beside):
    kept = Kept((1000, 600), (0, 0), (0, 0), head=0, logits=0, connectors=0, features=0)
    weights = Weights(1000, 100, by_layer=(50, 50))
    ranks = Ranks(accelerator=accelerator)
    moments = memory_of(weights, kept, ranks).moments
    assert moments["backward"] == sum(standing(weights, ranks).values()) + 1600
    assert moments["reduction"] == sum(standing(weights, ranks).values()) + 2 * 400 + beside


def test_stage_3_keeps_gathered_what_it_fetched():
    weights = Weights(frozen=2 * FETCHED, trained=0)
    moments = memory_of(weights, NOTHING, Ranks(2, 3)).moments
    assert moments["forward"] - moments["loss"] == 4 * FETCHED
    assert moments["loss"] == 4 * FETCHED + SMALL + 4 * 2 * FETCHED


def test_offloaded_states_leave_the_accelerator_alone():
    for accelerator, optimizer in ((True, 0), (False, 1200)):
        found = standing(W, Ranks(offload=True, accelerator=accelerator))
        assert found["optimizer"] == optimizer


def test_the_heap_holds_a_share_of_what_moves_unused():
    kept = Kept((1000,), (0,), (0,), head=0, logits=0, connectors=0, features=70)
    weights = Weights(10_000, 0, by_layer=(0,))
    memory = memory_of(weights, kept, Ranks(), around=Around(heap_share=0.5))
    assert memory.parts["activations"] == 1000
    assert memory.parts["heap"] == 500


def test_a_network_is_built_whole_on_every_rank_before_it_is_spread():
    ranks, around = Ranks(4, 3), Around(process=7, loaded=2)
    assert memory_of(W, NOTHING, ranks, around=around).moments["load"] == 4 * (2 * 1000 + 100) + 7


def test_states_that_are_written_beside_the_steps_are_copies_of_weights_and_moments():
    without, saving = (memory_of(W, NOTHING, Ranks(), around=Around(saves=on)) for on in (0, 1))
    assert saving.needed - without.needed == saving.parts["states"] == 3 * 4 * 100


@pytest.mark.parametrize(
    ("ranks", "whole"),
    [
        (Ranks(), 0),  # every tensor is at hand
        (Ranks(2, 1), 1),
        (Ranks(2, 3), 1),
        (Ranks(2, expert_parallel=2), 2),  # the ranks' parts, and what they make
    ],
)
def test_a_state_is_read_one_tensor_at_a_time_beside_the_copies(ranks, whole):
    weights = Weights(1000, 100, largest=40)
    moments = memory_of(weights, NOTHING, ranks, around=Around(saves=True)).moments
    beside = moments["state"] - sum(standing(weights, ranks).values())
    assert beside == 3 * 4 * 100 + whole * 4 * 40
    assert "state" not in memory_of(weights, NOTHING, ranks).moments


def test_an_accelerator_holds_no_copies_of_a_state():
    weights, ranks = Weights(1000, 100, largest=40), Ranks(2, 2, accelerator=True)
    memory = memory_of(weights, NOTHING, ranks, around=Around(saves=True))
    assert memory.parts["states"] == 0
    assert memory.moments["state"] == sum(standing(weights, ranks).values()) + 4 * 40


def test_spread_experts_are_saved_whole():
    weights = Weights(frozen=0, trained=100, learning_experts=60)
    ranks = Ranks(2, expert_parallel=2)
    assert memory_of(weights, NOTHING, ranks, around=Around(saves=True)).parts["states"] == 1200


def test_remembered_features_stand_all_the_time():
    memory = memory_of(W, NOTHING, Ranks(), around=Around(remembered=99))
    assert memory.parts["features"] == 99


def test_a_heap_has_more_gaps_the_more_sizes_steps_have():
    assert heap_share(1) < heap_share(6) < heap_share(40)


@pytest.mark.parametrize(("accelerator", "gradients"), [(False, 2 * 4 * 50), (True, 0)])
def test_an_offloaded_optimizer_keeps_gradients_on_the_cpu(accelerator, gradients):
    found = standing(W, Ranks(2, 1, offload=True, accelerator=accelerator))
    assert found["gradients"] == gradients


def test_beside_an_accelerator_the_machine_holds_what_is_built_there_and_what_is_offloaded():
    around = Around(process=7, loaded=2, remembered=99, saves=True)
    ranks = Ranks(4, 1, precision="bfloat16", accelerator=True)
    found = host_memory_of(W, ranks, here=2, around=around)
    assert found.moments == {
        "load": 4 * (2 * 1000 + 100) + 7,  # copies of a foundation are float32, on every rank
        "step": 99 + 3 * 4 * 100 // 2 + 7,  # one of the two keeps a state's copies
    }
    assert found.moment == "load"
    assert host_memory_of(W, ranks).moments["load"] == 2 * 1000 + 4 * 100
    offloaded = host_memory_of(W, Ranks(4, 1, offload=True, accelerator=True))
    assert offloaded.moments["step"] == 5 * 4 * 25
    device = memory_of(W, NOTHING, ranks, around=around)
    assert device.moments["load"] == 7
    assert device.parts["features"] == 0
