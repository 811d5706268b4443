"""What `uni-moe size` counts: recipes, workspaces and model folders, on the meta device."""

import json
import resource
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig

from uni_moe.cli import main
from uni_moe.config import load_params
from uni_moe.errors import ConfigError
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.train.planned import planned_config
from uni_moe.workspace import make_workspace, recipe_file

PAPER = {  # table 1: total and activated, in 10^9
    "paper-4-interval": (13.2, 8.9),
    "paper-4-all": (19.7, 11.1),
    "paper-8-interval": (21.9, 8.9),
    "paper-8-all": (37.0, 11.1),
}


def told(capsys, *words):
    capsys.readouterr()  # what others have said before
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("recipe", PAPER)
def test_a_recipe_of_the_paper_has_the_papers_parameters(recipe, capsys):
    size = json.loads(told(capsys, "size", "--recipe", recipe, "--json"))
    found = (round(size["language"] / 1e9, 1), round(size["activated"] / 1e9, 1))
    assert found == PAPER[recipe]
    assert f"{found[0]:.1f} B" in told(capsys, "size", "--recipe", recipe)


def test_the_largest_model_is_counted_in_little_time_and_memory():
    begin = time.monotonic()
    words = ["-m", "uni_moe", "size", "--recipe", "paper-8-all", "--json"]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    assert time.monotonic() - begin < 30
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of all children so far
    assert peak_kib < 2 * 1024**2


def test_every_part_of_the_papers_model_stands_in_its_recipe():
    params = load_params(recipe_file("paper-8-all"))
    config = planned_config(params, recipe_file("paper-8-all").parent)
    assert config.image_rows == 576
    assert (config.vision_select_layer, config.video_frames) == (-2, 8)
    assert config.speech_connector["query_tokens"] == config.audio_connector["query_tokens"] == 50
    assert (config.audio_config.encoder_layers, config.speech_config.encoder_layers) == (12, 12)
    assert (params.tune.lora.rank, params.tune.lora.alpha) == (8, 16)
    assert {phase.lora.rank for phase in params.experts.values()} == {64}
    assert {phase.learning_rate for phase in (*params.experts.values(), params.tune)} == {4.0e-5}
    assert {params.align[name].learning_rate for name in ("audio", "speech")} == {2.0e-5}


@pytest.mark.parametrize("recipe", PAPER)
def test_a_recipe_of_the_paper_tunes_for_two_epochs_of_what_it_blends(recipe):
    tune = load_params(recipe_file(recipe)).tune
    samples = 2 * round(sum(tune.blend.values()) * 100_000)
    assert tune.steps == -(-samples // tune.batch_size)


def test_losses_and_adapters_are_switched_on_by_params_alone():
    params = load_params(recipe_file("paper-8-interval"))
    losses = replace(params.tune.losses, balance=0.1, target=0.2, expert_targets={"image": (4,)})
    params = replace(
        params,
        tune=replace(params.tune, losses=losses),
        assembly=replace(params.assembly, modality_adapters=True),
    )
    config = planned_config(params, recipe_file("paper-8-interval").parent)
    assert (config.balance_coefficient, config.target_coefficient) == (0.1, 0.2)
    assert config.expert_targets == {"image": [4]}
    with torch.device("meta"):
        model = UniMoeForConditionalGeneration(config)
    kinds = set(model.sparse_layers()[0].adapters.maps)
    assert kinds == {"image", "video", "audio", "speech", "text"}


@pytest.mark.parametrize(
    ("layers", "count"), [("first_half", 2), ("second_half", 2), ("all", 4), ([1, 2, 3], 3)]
)
def test_a_workspace_is_counted_before_it_has_run(layers, count, tmp_path, capsys):
    folder = make_workspace(tmp_path / "space", "smoke")
    text = (folder / "params.yaml").read_text()
    assert "sparse_layers: [0, 2]" in text
    (folder / "params.yaml").write_text(text.replace("[0, 2]", str(layers), 1))
    assert f"in {count} of 4 layers" in told(capsys, "--workspace", folder, "size")


def test_a_folder_is_counted_as_its_tensors_are(tmp_path, capsys):
    config = UniMoeConfig(
        LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
        ),
        sparse_layers="all",
        num_experts=3,
        experts_per_token=1,
    )
    model = UniMoeForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    size = json.loads(told(capsys, "size", tmp_path, "--json"))
    assert size["language"] == size["total"] == sum(p.numel() for p in model.parameters())
    assert size["language"] - size["activated"] == 2 * 2 * 3 * 16 * 24


def test_a_pretrained_folder_that_is_here_is_believed(tmp_path):
    params = load_params(recipe_file("paper-4-all"))
    folder = tmp_path / params.foundation.language.pretrained
    folder.mkdir(parents=True)
    LlamaConfig(hidden_size=64, num_hidden_layers=6, num_attention_heads=4).save_pretrained(folder)
    config = planned_config(params, tmp_path)
    assert (config.text_config.hidden_size, config.sparse_layers) == (64, [0, 1, 2, 3, 4, 5])


def test_a_part_of_unknown_size_is_named():
    params = load_params(recipe_file("paper-4-all"))
    chosen = replace(params.foundation.language, pretrained="models/mine")
    params = replace(params, foundation=replace(params.foundation, language=chosen))
    with pytest.raises(ConfigError, match=r"foundation.language are not known") as error:
        planned_config(params, recipe_file("paper-4-all").parent)
    assert "vicuna-7b-v1.5" in error.value.remedy


@pytest.mark.parametrize("text", ['{"hidden_size": ', '{"hidden_size": "many"}'])
def test_a_pretrained_folder_that_describes_no_network_is_blamed_itself(text, tmp_path, capsys):
    folder = make_workspace(tmp_path / "space", "paper-4-all")
    file = folder / load_params(folder / "params.yaml").foundation.language.pretrained
    file = file / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert main(["--workspace", str(folder), "size"]) == 2
    assert f"{file} describes no network" in capsys.readouterr().err


def test_params_that_describe_no_network_are_blamed_by_their_path(tmp_path, capsys):
    folder = make_workspace(tmp_path / "space", "smoke")
    file = folder / "params.yaml"
    file.write_text(
        file.read_text().replace("hidden_size: 48", "hidden_size: 480000000000000000", 1)
    )
    assert main(["--workspace", str(folder), "size"]) == 2
    told = capsys.readouterr().err
    assert f"{file} describes no network" in told
    assert "correct `foundation` and `model` in it" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "../params"], "There is no recipe '../params'"),
        (["nowhere"], "nowhere holds no model of ours"),
    ],
)
def test_what_cannot_be_counted_says_why(words, said, capsys):
    assert main(["size", *words]) == 2
    assert said in capsys.readouterr().err
