"""Surgery on model folders by the command: what it prints, its receipts, and how it is undone."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.checkpoints.conftest import load
from uni_moe.checkpoints.folders import read_model
from uni_moe.model.merging import digest
from uni_moe.model.network import UniMoeForConditionalGeneration


def same(one, other):
    (config_a, a), (config_b, b) = read_model(one), read_model(other)
    equal = a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    return equal and config_a.to_dict() == config_b.to_dict()


def receipt_of(folder):
    return json.loads((folder / "receipt.json").read_text())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--permute", "1,0"], "slot 0: own slot 1"),
        (["--clone", "1"], "slot 2: own slot 1"),
        (["--add", "DONOR#1", "--seed", "5"], "slot 2: mixture, slot 1, router row drawn from"),
    ],
)
def test_an_operation_is_told_and_undone(words, said, mixture, tmp_path, command):
    folder, _ = mixture
    words = [word.replace("DONOR", str(folder)) for word in words]
    code, out, _ = command("surgery", folder, *words, "--out", tmp_path / "after")
    assert code == 0
    assert said in out
    assert "--undo" in out
    assert command("surgery", tmp_path / "after", "--undo", "--out", tmp_path / "back")[0] == 0
    assert same(tmp_path / "back", folder)


@pytest.mark.parametrize("words", [["--replace", "0", "DONOR#1"], ["--remove", "0"]])
def test_what_loses_an_expert_says_so(words, mixture, tmp_path, command):
    folder, _ = mixture
    three = tmp_path / "three"
    assert command("surgery", folder, "--clone", "0", "--out", three)[0] == 0
    words = [word.replace("DONOR", str(folder)) for word in words]
    code, out, _ = command("surgery", three, *words, "--out", tmp_path / "after")
    assert code == 0
    assert "it cannot be undone: an expert is lost" in out
    assert "it cannot be undone from the result alone" in out
    assert "--undo" not in out
    code, _, err = command("surgery", tmp_path / "after", "--undo", "--out", tmp_path / "back")
    assert code == 2
    assert "something was lost by it" in err
    assert not (tmp_path / "back").exists()


def test_an_upcycled_model_is_dissolved_into_the_dense_one(mixture, tmp_path, command):
    folder, dense = mixture
    back = tmp_path / "back"
    assert command("surgery", folder, "--undo", "--out", back)[0] == 0
    assert same(back, dense)
    (config, mixture), (_, state) = read_model(folder), read_model(back)
    told = {entry["target"]: entry for entry in receipt_of(back)["origins"]}
    assert told.keys() == state.keys() - mixture.keys()
    assert len(told) == 3 * len(config.sparse_layers)
    prefix = "language_model.model.layers.0.mlp."
    assert told[prefix + "up_proj.weight"]["source"] == f"{prefix}experts.gate_up_proj[0]"
    assert all(entry["sha256"] == digest([state[name]]) for name, entry in told.items())


def test_a_receipt_of_an_upcycle_names_its_router_rows(mixture):
    folder, _ = mixture
    _, state = read_model(folder)
    told = {(e["target"], e["slot"]): e for e in receipt_of(folder)["origins"]}
    mixed = [n for n in state if ".mlp.experts." in n or ".mlp.router." in n]
    assert told.keys() == {(name, slot) for name in mixed for slot in range(2)}
    for (name, slot), entry in told.items():
        if name.endswith("router.weight"):
            assert entry["donor"] == "new"
            assert entry["sha256"] == digest([state[name][slot]])


def test_experts_for_each_token_are_chosen_with_the_mixture(dense, tmp_path, command):
    words = ["--upcycle", "base,base,base", "--top-k", "3", "--layers", "all"]
    out = tmp_path / "three"
    code, told, _ = command("surgery", dense[0], *words, "--out", out, "--json")
    assert code == 0
    assert load(out).config.experts_per_token == 3
    assert json.loads(told) == receipt_of(out)


def test_a_receipt_names_every_expert_tensor_and_router_row(mixture, tmp_path, command):
    folder, _ = mixture
    after = tmp_path / "after"
    assert command("surgery", folder, "--add", f"{folder}#1", "--out", after)[0] == 0
    receipt, (config, state) = receipt_of(after), read_model(after)
    assert receipt["slots"] == ["base", str(tmp_path / "sound.safetensors"), "mixture[1]"]
    told = {(entry["target"], entry["slot"]) for entry in receipt["origins"]}
    mixed = [n for n in state if ".mlp.experts." in n or ".mlp.router." in n]
    assert len(mixed) == 3 * len(config.sparse_layers)
    assert told == {(name, slot) for name in mixed for slot in range(3)}
    assert receipt["earlier"]["operation"]["name"] == "upcycle"


def test_a_difference_follows_a_donor_through_later_operations(mixture, tmp_path, command):
    folder, dense = mixture
    turned = tmp_path / "turned"
    assert command("surgery", folder, "--permute", "1,0", "--out", turned)[0] == 0
    code, out, _ = command("diff", dense, turned)
    assert code == 1
    name = tmp_path / "sound.safetensors"
    assert f"layer   0 expert   0  replaced by {name}: norm" in out
    assert "layer   0 expert   1  permuted: expert 0 of A" in out
    assert "experts: 2 permuted, 2 replaced" in out
    found = json.loads(command("diff", dense, turned, "--json")[1])["experts"]
    assert {one["origin"] for one in found if one["kind"] == "replaced"} == {str(name)}


def test_identical_experts_are_told_too_in_one_line_where_all_of_a_layer_are(
    mixture, tmp_path, command
):
    folder, _ = mixture
    other = shutil.copytree(folder, tmp_path / "other", ignore=shutil.ignore_patterns("card.json"))
    state = load_file(folder / "model.safetensors")
    state["language_model.model.layers.2.mlp.experts.down_proj"][1] += torch.randn(16, 24)
    save_file(state, other / "model.safetensors", metadata={"format": "pt"})
    _, out, _ = command("diff", folder, other)
    said = [line.strip() for line in out.splitlines() if line.startswith("  layer")]
    assert said[:2] == ["layer   0 all 2 experts  identical", "layer   2 expert   0  identical"]
    assert said[2].startswith("layer   2 expert   1  changed: norm")
    assert len(said) == 3


def test_equal_models_are_said_to_be_equal(dense, command):
    code, out, _ = command("diff", dense[0], dense[0])
    assert code == 0
    assert "do not differ" in out
    assert json.loads(command("diff", dense[0], dense[0], "--json")[1])["experts"] == []


def test_a_tensor_of_another_shape_has_no_norm_in_json(mixture, tmp_path, command):
    folder, _ = mixture
    assert command("surgery", folder, "--clone", "0", "--out", tmp_path / "three")[0] == 0
    code, out, _ = command("diff", folder, tmp_path / "three", "--json")
    assert code == 1
    experts = json.loads(out)["experts"]
    router = next(one for one in experts if one["name"].endswith("router.weight"))
    assert (router["kind"], router["norm"], router["share"]) == ("changed", None, None)


def test_an_adapter_is_merged_by_the_command(adapted, tmp_path, command):
    folder, adapter, wrapped = adapted
    after = tmp_path / "after"
    code, out, _ = command("surgery", folder, "--merge", adapter, "--out", after)
    assert code == 0
    assert "cannot be undone" in out
    ids = torch.randint(0, 50, (2, 9))
    with torch.no_grad():
        one, two = wrapped(input_ids=ids).logits, load(after)(input_ids=ids).logits
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)
    assert receipt_of(after)["operation"] == {"name": "merge", "adapters": 16, "rank": 2}
    _, out, _ = command("diff", folder, after)
    assert "layer   0 expert   1  LoRA delta by adapter: rank 2, norm" in out
    assert "layers.1.self_attn.q_proj.weight  LoRA delta by adapter: rank 2, norm" in out


def refused(command, out, *words):
    code, _, err = command(*words, "--out", out)
    assert code in (2, 3, 5)
    assert not out.exists()
    assert "cause:" in err
    assert "remedy:" in err
    assert "Traceback" not in err
    return err


def test_an_adapter_for_another_base_is_refused(adapted, mixture, tmp_path, command):
    folder, adapter, _ = adapted
    _, dense = mixture
    out = tmp_path / "out"
    said = refused(command, out, "surgery", dense, "--merge", adapter)
    assert "on nothing of that name" in said
    turned = tmp_path / "turned"
    assert command("surgery", folder, "--permute", "1,0", "--out", turned)[0] == 0
    said = refused(command, out, "surgery", turned, "--merge", adapter)
    assert "was trained on another base" in said
    assert "the same shapes" in said
    (adapter / "base.json").unlink()
    code, out, _ = command("surgery", turned, "--merge", adapter, "--out", out)
    assert code == 0
    assert "note: the adapter adapter: nobody can know whether" in out


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"use_dora": True}, "`use_dora` is True"),
        ({"use_rslora": True}, "`use_rslora` is True"),
        ({"lora_alpha": None}, "`lora_alpha` is None"),
        ({"r": 3}, "of rank 3"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(changed, said, adapted, tmp_path, command):
    folder, adapter, _ = adapted
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    assert said in refused(command, tmp_path / "out", "surgery", folder, "--merge", adapter)


def test_wishes_follow_their_experts(mixture, tmp_path, command):
    folder, _ = mixture
    config = json.loads((folder / "config.json").read_text())
    config |= {"expert_targets": {"image": [0], "audio": [1]}, "target_coefficient": 0.1}
    (folder / "config.json").write_text(json.dumps(config))
    turned, three = tmp_path / "turned", tmp_path / "three"
    assert command("surgery", folder, "--permute", "1,0", "--out", turned)[0] == 0
    assert load(turned).config.expert_targets == {"image": [1], "audio": [0]}
    assert command("surgery", folder, "--clone", "0", "--out", three)[0] == 0
    assert load(three).config.expert_targets == {"image": [0, 2], "audio": [1]}
    less = tmp_path / "less"
    assert command("surgery", three, "--remove", "1", "--out", less)[0] == 0
    assert load(less).config.expert_targets == {"image": [0, 1]}
    (three / "config.json").write_text(
        json.dumps({**config, "num_experts": 3, "expert_targets": {"audio": [1]}})
    )
    said = refused(command, tmp_path / "none", "surgery", three, "--remove", "1")
    assert "No expert that is wished for" in said


def test_a_model_that_is_not_whole_is_refused(mixture, tmp_path, command):
    folder, _ = mixture
    state = load_file(folder / "model.safetensors")
    router = next(name for name in state if name.endswith("router.weight"))
    state["language_model.model.norm.weight"] = torch.ones(3)
    del state[router]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    out = tmp_path / "out"
    for words in (["surgery", folder, "--clone", "0"], ["export-official", folder]):
        said = refused(command, out, *words)
        assert f"missing: {router}" in said
        assert "model.norm.weight is (3,), the network takes (16,)" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--add", "nowhere"], "There is no donor nowhere"),
        (["--add", "nowhere#two"], "'two' is no slot"),
        (["--replace", "x", "nowhere"], "'x' is no slot"),
        (["--merge", "nowhere"], "nowhere holds no adapter"),
        (["--permute", "1,x"], "'1,x' is no list of slots"),
        (["--clone", "0", "--top-k", "1"], "belong to --upcycle"),
        (["--remove", "0"], "1 experts would be left"),
        (["--upcycle", "base"], "has a mixture already"),
    ],
)
def test_what_cannot_be_done_says_why_and_writes_nothing(words, said, mixture, tmp_path, command):
    folder, _ = mixture
    assert said in refused(command, tmp_path / "out", "surgery", folder, *words)


class Runs:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_donor_that_wants_to_run_code_is_refused(mixture, tmp_path, command):
    folder, _ = mixture
    torch.save({"x": Runs()}, tmp_path / "donor.bin")
    said = refused(command, tmp_path / "out", "surgery", folder, "--add", tmp_path / "donor.bin")
    assert "asks for code to be run" in said
    assert "code ran" not in said


def test_a_donor_may_bear_any_name(mixture, tmp_path, command):
    folder, _ = mixture
    folder.rename(tmp_path / "self")
    after = tmp_path / "after"
    words = ["--replace", "0", f"{tmp_path / 'self'}#1"]
    assert command("surgery", tmp_path / "self", *words, "--out", after)[0] == 0
    _, out, _ = command("diff", tmp_path / "self", after)
    assert isinstance(load(after), UniMoeForConditionalGeneration)
    assert receipt_of(after)["slots"][0] == "./self[1]"
    assert "layer   0 expert   0  permuted: expert 1 of A" in out
