"""The phases in bfloat16: what is frozen is held in it, what learns is float32, resume is exact."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.ranks import (
    has_state,
    kill_all,
    made_for_tune,
    start,
    tuned,
    two,
    wait_for,
)
from tests.integration.test_smallest_road import smallest_data
from uni_moe.artifacts import Layout, read_card
from uni_moe.cli import main
from uni_moe.model.network import UniMoeForConditionalGeneration

pytestmark = pytest.mark.operate
AGAIN = {"zero_stage": 3, "activation_checkpointing": True}
ROUNDING, NORM_ROUNDING = 2e-2, 5e-2  # of a loss, of a gradient; bfloat16 tells 1 from 1.0078


def types(file):
    return {tensor.dtype for tensor in load_file(file).values()}


@pytest.fixture(scope="module")
def assembled(tmp_path_factory):
    """A workspace in bfloat16; its phases take enough steps to learn something."""
    data = smallest_data()
    data["platform"]["precision"] = "bfloat16"
    for phase in (*data["align"].values(), *data["experts"].values()):
        phase |= {"steps": 4, "batch_size": 4}
    return made_for_tune(tmp_path_factory.mktemp("bfloat16"), data)


@pytest.fixture(scope="module")
def alone(assembled):
    """What one process does, ZeRO stage -> steps and adapter."""
    return {stage: tuned(assembled, zero_stage=stage) for stage in (0, 3)}


@pytest.mark.usefixtures("alone")
def test_every_phase_learns(assembled):
    layout = Layout(assembled)
    folders = [layout.aligned("image"), layout.expert("audio"), layout.model]
    for folder in folders:
        card = read_card(folder)
        assert card.params["platform"]["precision"] == "bfloat16"
        losses = card.results["validation_loss"].values()
        before, after = (sum(loss[name] for loss in losses) for name in ("before", "after"))
        assert after < before


@pytest.mark.usefixtures("alone")
def test_artifacts_are_half_and_what_learned_alone_is_whole(assembled):
    layout = Layout(assembled)
    assert types(layout.aligned("image") / "connector.safetensors") == {torch.float32}
    assert types(layout.expert("audio") / "expert.safetensors") == {torch.bfloat16}
    assert types(layout.model / "adapter/adapter_model.safetensors") == {torch.float32}
    for folder in (layout.assembled, layout.model):
        assert types(folder / "model.safetensors") == {torch.bfloat16}
        model = UniMoeForConditionalGeneration.from_pretrained(folder, local_files_only=True)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.usefixtures("alone")
def test_the_model_is_evaluated_in_its_own_precision(assembled):
    assert main(["--workspace", str(assembled), "evaluate"]) == 0


def near(found, expected):
    assert [row["step"] for row in found.rows] == [row["step"] for row in expected.rows]
    for row, by_one in zip(found.rows, expected.rows, strict=True):
        assert row["loss"] == pytest.approx(by_one["loss"], rel=ROUNDING)
        assert row["gradient_norm"] == pytest.approx(by_one["gradient_norm"], rel=NORM_ROUNDING)
    assert found.adapter.keys() == expected.adapter.keys()


@pytest.mark.parametrize("machine", [{}, AGAIN, {"expert_parallel": 2}])
def test_two_ranks_agree_with_one_to_rounding(machine, assembled, alone):
    near(tuned(assembled, **two(**machine)), alone[0])


def test_spread_weights_give_the_same_losses(alone):
    near(alone[3], alone[0])


@pytest.mark.parametrize("machine", [two(zero_stage=1), two(zero_stage=3)])
def test_resume_ends_in_the_same_bits(machine, assembled):
    expected = tuned(assembled, **machine).adapter
    process = start(assembled, machine)
    wait_for(lambda: has_state(assembled))
    kill_all(process, assembled)
    states = list((assembled / "state").glob("tune-*/step-*/tensors.safetensors"))
    assert states
    assert all(types(file) == {torch.float32} for file in states)
    found = tuned(assembled, **machine)
    assert found.rows[0]["step"] > 1
    assert all(torch.equal(found.adapter[name], tensor) for name, tensor in expected.items())


def test_resume_with_another_number_of_ranks_goes_on(assembled, alone):
    process = start(assembled, two(zero_stage=2))
    wait_for(lambda: has_state(assembled))
    kill_all(process, assembled)
    rows = tuned(assembled).rows
    assert rows[0]["step"] > 1
    for row in rows:
        expected = alone[0].rows[row["step"] - 1]
        assert row["loss"] == pytest.approx(expected["loss"], rel=ROUNDING)
    shutil.rmtree(assembled / "state", ignore_errors=True)
