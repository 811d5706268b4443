import pytest
import torch

from uni_moe.artifacts import Layout, write_artifact
from uni_moe.config import load_params
from uni_moe.machine import Machine
from uni_moe.outlook.disk import Disk, disk_of
from uni_moe.outlook.trainings import Trainings
from uni_moe.train.state import StateStore, TrainingState
from uni_moe.workspace import recipe_file

STAGES = ("foundation@language", "align@audio", "experts@speech", "assemble", "tune", "evaluate")


@pytest.fixture(scope="module")
def looking(tmp_path_factory):
    """Return trainings, and what they write on a machine."""
    layout = Layout(tmp_path_factory.mktemp("disk"))
    params = load_params(recipe_file("smoke"))
    plans = Trainings(layout, params, Machine())
    found = {stage: plans.of(stage) for stage in STAGES}
    trainings = {stage: one for stage, one in found.items() if one is not None}

    def on(machine):
        return disk_of(layout, params, plans.config, STAGES, trainings, machine)

    return trainings, on


@pytest.fixture(scope="module")
def looked(looking):
    trainings, on = looking
    return trainings, on(Machine())


def test_only_what_trains_is_looked_at(looked):
    trainings, _ = looked
    assert list(trainings) == ["foundation@language", "align@audio", "experts@speech", "tune"]


def test_artifacts_hold_what_their_stages_save(looked):
    trainings, disk = looked
    tune, expert = trainings["tune"], trainings["experts@speech"]
    adapter = sum(n for part, n in tune.learns.items() if part.startswith("lora."))
    assert disk.artifacts["tune"] == 4 * tune.parameters
    assert disk.artifacts["assemble"] == 4 * (tune.parameters - adapter)
    assert disk.artifacts["align@audio"] == trainings["align@audio"].trained_bytes
    feed_forwards = 2 * 3 * 48 * 96  # two sparse layers of the recipe
    assert disk.artifacts["experts@speech"] == 4 * (expert.trained + feed_forwards)
    assert "evaluate" not in disk.artifacts


def test_the_last_two_states_the_best_and_the_one_being_written_stand_at_the_peak(looked):
    trainings, disk = looked
    assert disk.states == {name: 4 * 3 * one.trained_bytes for name, one in trainings.items()}


def test_a_machine_that_keeps_states_needs_room_for_all_of_them(looking):
    trainings, on = looking
    params = load_params(recipe_file("smoke"))
    plans = {
        "foundation@language": params.foundation.language.tiny,
        "align@audio": params.align["audio"],
        "experts@speech": params.experts["speech"],
        "tune": params.tune,
    }
    for name, found in on(Machine(keep_states=True)).states.items():
        steps, every = plans[name].steps, plans[name].save_every_steps
        saved = len([step for step in range(1, steps) if step % every == 0])
        assert found == saved * 3 * trainings[name].trained_bytes


def test_a_store_of_states_holds_as_many_at_its_peak_as_a_plan_says(tmp_path):
    there = []
    states = StateStore(
        tmp_path / "tune",
        Machine.last_states,
        lambda _: there.append(len(list((tmp_path / "tune").glob("step-*")))),
    )
    for step, loss in enumerate((1.0, 5.0, 4.0, 3.0, 2.0)):  # the first stays the best
        states.save(TrainingState(step, loss, {"router": torch.zeros(2)}, {}))
    states.settle()
    assert max(there) == Machine.last_states + 2


def test_without_corpora_nothing_is_said_of_features(looked):
    assert looked[1].features == {}


def test_features_that_are_there_need_no_room():
    disk = Disk({"tune": 10}, {"tune": 6}, {"image": 100}, features_here=70, free=45)
    assert disk.needed == 10 + 6 + 30
    assert disk.to_json()["fits"] is False


def test_samples_and_corpora_hold_the_media_that_were_ingested_last(looking, tmp_path):
    trainings, _ = looking
    layout, params = Layout(tmp_path), load_params(recipe_file("smoke"))
    stages = ("ingest", "validate", "prepare@text", "prepare@image", "prepare@audio")

    def told():
        config = Trainings(layout, params, Machine()).config
        return disk_of(layout, params, config, stages, trainings, Machine())

    assert told().unknown == ("ingest", "prepare@image", "prepare@audio")
    assert told().artifacts == {}
    for modality, size in {"image": 70, "audio": 5}.items():
        folder = layout.samples(modality)
        with write_artifact(folder, stage="ingest", kind="s", params={}, parents={}) as draft:
            draft.results["media_bytes"] = size
    assert told().artifacts == {"ingest": 75, "prepare@image": 70, "prepare@audio": 5}
    assert told().unknown == ()
