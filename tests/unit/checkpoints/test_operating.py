import json

import torch

from tests.unit.checkpoints.conftest import load
from uni_moe.checkpoints import reshaping
from uni_moe.cli import main


def test_identical_experts_equal_the_dense_feed_forward(dense, tmp_path, capsys):
    folder, model = dense
    out = tmp_path / "mixture"
    words = ["surgery", folder, "--upcycle", "base,base,base", "--layers", "all", "--out", out]
    assert main(list(map(str, words))) == 0
    ids = torch.randint(0, 50, (2, 9))
    with torch.no_grad():
        one, two = (m(input_ids=ids).logits for m in (model, load(out)))
    assert (one - two).abs().max() < 1e-6
    assert load(out).config.sparse_layers == [0, 1, 2]
    assert "receipt.json" in capsys.readouterr().out


def test_the_road_of_a_model_by_commands(dense, tmp_path, capsys):
    folder, _ = dense

    def command(*words, code=0):
        assert main(list(map(str, words))) == code
        return capsys.readouterr().out

    mixture, first = tmp_path / "mixture", tmp_path / "first"
    command("surgery", folder, "--upcycle", "base,base", "--out", mixture)
    model = load(mixture)
    with torch.no_grad():
        for layer in model.sparse_layers().values():
            layer.experts.down_proj.normal_()
    model.save_pretrained(first)
    command("surgery", first, "--permute", "1,0", "--out", tmp_path / "turned")
    told = command("diff", first, tmp_path / "turned", code=1)
    assert "layer   0 expert   0  permuted: expert 1 of A" in told
    command("surgery", tmp_path / "turned", "--undo", "--out", tmp_path / "back")
    found = json.loads(command("diff", "--json", first, tmp_path / "back"))
    assert {one["kind"] for one in found["experts"]} == {"identical"}
    donor = f"{first}#1"
    command("surgery", first, "--replace", "0", donor, "--out", tmp_path / "replaced")
    assert "replaced by" not in command(
        "diff", first, tmp_path / "replaced", code=1
    )  # it is A's own
    with torch.no_grad():
        for layer in model.sparse_layers().values():
            layer.experts.down_proj.normal_()
    model.save_pretrained(tmp_path / "donor")
    command("surgery", first, "--add", tmp_path / "donor", "--out", tmp_path / "more")
    assert load(tmp_path / "more").config.num_experts == 3
    command("surgery", first, "--replace", "0", tmp_path / "donor", "--out", tmp_path / "other")
    assert "replaced by donor[0]" in command("diff", first, tmp_path / "other", code=1)


def test_nothing_is_half_written(dense, tmp_path):
    folder, _ = dense
    out = tmp_path / "out"
    for words in (
        ["--upcycle", f"base,{tmp_path / 'nothing.safetensors'}"],
        ["--permute", "0,1"],
        ["--undo"],
    ):
        assert main(["surgery", str(folder), *words, "--out", str(out)]) != 0
        assert not out.exists()


def test_a_shard_is_split_where_it_grows_too_large(dense, tmp_path, monkeypatch):
    folder, model = dense
    monkeypatch.setattr("uni_moe.checkpoints.tensors.MOST_BYTES", 4000)
    reshaping.upcycle(folder, ["base", "base"], "all", seed=0, top_k=None, out=tmp_path / "mixture")
    shards = list((tmp_path / "mixture").glob("model-*.safetensors"))
    assert len(shards) > 2
    assert torch.equal(
        load(tmp_path / "mixture").language_model.lm_head.weight,
        model.language_model.lm_head.weight,
    )
