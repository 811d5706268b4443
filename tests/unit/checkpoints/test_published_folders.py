"""A published checkpoint made of tiny weights goes in and comes out again."""

import hashlib
import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from tests.unit.checkpoints.published import into_one_shard, model_that_hears, shard_of
from uni_moe.checkpoints.published_export import export_published
from uni_moe.checkpoints.published_import import import_published, plan_of
from uni_moe.cli import main
from uni_moe.errors import ConfigError, DataError, LineageError, UniMoeError
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.published.names import place


@pytest.mark.parametrize("what", ["speech", "audio"])
@pytest.mark.parametrize("style", ["experts", "deepspeed"])
def test_a_round_trip_is_equal_bit_for_bit(published, tmp_path, what, style):
    folder, model = published(what, style)
    import_published(plan_of([folder]), tmp_path / "back")
    back = UniMoeForConditionalGeneration.from_pretrained(tmp_path / "back")
    assert {n: p.shape for n, p in back.state_dict().items()} == {
        n: p.shape for n, p in model.state_dict().items()
    }
    assert all(torch.equal(t, back.state_dict()[n]) for n, t in model.state_dict().items())
    assert back.config.sparse_layers == [0, 2]


def test_adapters_in_front_of_the_router_come_back_too(published, tmp_path):
    folder, model = published("speech", "deepspeed", modality_adapters=True)
    name = "model.layers.0.mlp.deepspeed_moe.fm_audio.weight"
    maps = torch.load(folder / "fm_adapter.bin", weights_only=True)
    assert maps[name].shape == (32, 32, 1)
    assert len(maps) == 2 * 4 * 2  # layers, modalities, weight and bias
    import_published(plan_of([folder]), tmp_path / "back")
    back = UniMoeForConditionalGeneration.from_pretrained(tmp_path / "back")
    assert all(torch.equal(t, back.state_dict()[n]) for n, t in model.state_dict().items())


def test_published_names_stand_in_the_files_where_the_published_loader_looks(published):
    folder, _ = published()
    assert "model.layers.2.mlp.experts.3.up_proj.weight" in shard_of(folder)
    assert "model.layers.1.mlp.up_proj.weight" in shard_of(folder)
    aligner = torch.load(folder / "mm_audio_aligner.bin", weights_only=True)
    assert next(iter(aligner)) == "model.query_tokens"
    told = json.loads((folder / "config.json").read_text())
    assert told["mm_vision_tower"] == "vision_tower"


def test_an_expert_lies_in_the_file_of_its_rank_with_adapters_that_change_nothing(published):
    folder, model = published(style="deepspeed")
    told = json.loads((folder / "config.json").read_text())
    assert (told["ep_size"], told["lora_r"], told["lora_alpha"]) == (4, 8, 16)
    assert sorted(path.name[0] for path in folder.glob("*_mlp_experts.bin")) == list("0123")
    expert = torch.load(folder / "2_mlp_experts.bin", weights_only=True)
    assert len(expert) == 2 * 3 * 3  # layers, matrices, each with its two halves
    name = "model.layers.2.mlp.deepspeed_moe.experts.deepspeed_experts.0.down_proj"
    own = model.sparse_layers()[2].experts.down_proj[2]
    assert torch.equal(expert[f"{name}.weight"], own)
    assert expert[f"{name}_lora_A.weight"].shape == (8, 48)
    assert 0 < expert[f"{name}_lora_A.weight"].abs().max() <= 48**-0.5
    assert torch.equal(expert[f"{name}_lora_B.weight"], torch.zeros(32, 8))
    dense = shard_of(folder)
    assert dense["model.layers.1.mlp.up_proj_lora_B.weight"].shape == (48, 8)
    assert not any(".deepspeed_moe." in name for name in dense)
    gates = torch.load(folder / "mlp_gates.bin", weights_only=True)
    assert list(gates) == [f"model.layers.{i}.mlp.deepspeed_moe.gate.wg.weight" for i in (0, 2)]


def test_a_zero_of_a_negative_sign_comes_back(published, tmp_path):
    folder, _ = published(style="deepspeed")
    name = "model.layers.1.mlp.up_proj.weight"
    weights = shard_of(folder)
    weights[name][0] = -0.0
    save_file(weights, folder / "model.safetensors")
    import_published(plan_of([folder]), tmp_path / "back")
    back = UniMoeForConditionalGeneration.from_pretrained(tmp_path / "back")
    assert back.state_dict()[f"language_model.{name}"][0].signbit().all()


def test_what_the_published_code_asks_of_its_configuration_is_told(published):
    told = json.loads((published()[0] / "config.json").read_text())
    assert (told["mm_use_im_start_end"], told["mm_use_im_patch_token"]) == (False, False)
    assert (told["image_aspect_ratio"], told["language"]) == ("square", "English")


def test_encoders_are_named_by_full_paths_where_that_is_asked_for(published, tmp_path, capsys):
    published()
    words = ["export-official", str(tmp_path / "ours"), "--out"]
    assert main([*words, str(tmp_path / "one")]) == 0
    assert "the published loader looks for them from where it is started" in capsys.readouterr().out
    assert main([*words, str(tmp_path / "two"), "--absolute"]) == 0
    assert "note:" not in capsys.readouterr().out
    told = json.loads((tmp_path / "two" / "config.json").read_text())
    assert told["mm_vision_tower"] == str(tmp_path / "two" / "vision_tower")
    assert told["mm_audio_tower"] == str(tmp_path / "two" / "audio_tower")
    import_published(plan_of([tmp_path / "two"]), tmp_path / "back")


def test_every_key_is_told(published, tmp_path):
    folder, _ = published()
    weights = shard_of(folder)
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(weights, folder / "model.safetensors")
    found = plan_of([folder])
    text = found.text()
    shard = "published/model.safetensors: "
    assert f"ignored  {shard}model.layers.0.self_attn.rotary_emb.inv_freq: computed" in text
    assert f"used     {shard}lm_head.weight -> language_model.lm_head.weight" in text
    import_published(found, tmp_path / "back")
    receipt = json.loads((tmp_path / "back" / "import.json").read_text())
    assert len(receipt["used"]) + len(receipt["ignored"]) == len(found.published.weights)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert receipt["read"]["published/model.safetensors"] == digest


def test_an_adapter_is_merged_by_hand(published, tmp_path):
    folder, model = published()
    target = "model.layers.2.mlp.experts.1.up_proj.weight"
    a, b = torch.randn(3, 32), torch.randn(48, 3)
    name = "base_model.model." + target.removesuffix(".weight")
    torch.save(
        {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, folder / "adapter_model.bin"
    )
    (folder / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 6}))
    found = plan_of([folder])
    note = "published/adapter_model.bin does not say on which weights it was trained"
    assert f"note     {note}" in found.text()
    assert note in found.receipt()["notes"][0]
    import_published(found, tmp_path / "back")
    back = UniMoeForConditionalGeneration.from_pretrained(tmp_path / "back")
    packed = back.sparse_layers()[2].experts.gate_up_proj
    old = model.sparse_layers()[2].experts.gate_up_proj
    assert torch.allclose(packed[1, 48:], old[1, 48:] + 2 * b @ a, atol=1e-6)
    assert torch.equal(packed[1, :48], old[1, :48])
    assert torch.equal(packed[0], old[0])


def test_the_delta_of_one_expert_that_rounding_swallows_is_told(published, tmp_path, capsys):
    folder, _ = published()
    name = "model.layers.2.mlp.experts.{}.up_proj"
    halves = {}
    for slot, scale in ((0, 1.0), (1, 1e-20), (2, 0.0)):
        start = f"base_model.model.{name.format(slot)}.lora_"
        halves[f"{start}A.weight"] = torch.randn(3, 32)
        halves[f"{start}B.weight"] = torch.randn(48, 3) * scale
    torch.save(halves, folder / "adapter_model.bin")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 6}))
    said = refused([folder], tmp_path / "back", LineageError)
    assert "1 of 2 trained adapters would change nothing" in said
    assert f"{name.format(1)}.weight: delta of norm" in said
    assert main(["import-official", str(folder), "--out", str(tmp_path / "back"), "--json"]) == 5
    assert len(json.loads(capsys.readouterr().out)["merged"]) == 6


def test_an_adapter_of_what_nobody_reads_is_told_as_ignored(published, tmp_path):
    folder, _ = published()
    name = "model.mm_audio_aligner.decoder.audio_decoder.embed_tokens"
    aligner = torch.load(folder / "mm_audio_aligner.bin", weights_only=True)
    torch.save(aligner | {f"{name}.weight": torch.zeros(9, 32)}, folder / "mm_audio_aligner.bin")
    later = tmp_path / "e2"
    later.mkdir()
    start = f"base_model.model.{name}.lora_"
    halves = {f"{start}A.weight": torch.randn(3, 32), f"{start}B.weight": torch.randn(9, 3)}
    torch.save(halves, later / "adapter_model.bin")
    (later / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 6}))
    found = plan_of([folder, later])
    lines = [line for line in found.text().splitlines() if ".lora_" in line]
    assert len(lines) == 2
    assert all(line.startswith("ignored  e2/adapter_model.bin") for line in lines)
    import_published(found, tmp_path / "back")
    receipt = json.loads((tmp_path / "back" / "import.json").read_text())
    assert not receipt["merged"]
    assert sum(".lora_" in name for name in receipt["ignored"]) == 2


def test_what_was_trained_later_wins(published, tmp_path):
    folder, model = published()
    later = tmp_path / "e2"
    later.mkdir()
    gate = torch.randn(4, 32)
    torch.save({"model.layers.0.mlp.gate.weight": gate}, later / "mlp_gates.bin")
    projector = torch.randn(32)
    torch.save(
        {"base_model.model.model.mm_projector.2.bias": projector},
        later / "non_lora_trainables.bin",
    )
    found = plan_of([folder, later])
    import_published(found, tmp_path / "back")
    back = UniMoeForConditionalGeneration.from_pretrained(tmp_path / "back")
    assert torch.equal(back.sparse_layers()[0].router.weight, gate)
    assert torch.equal(back.image_connector.leave.bias, projector)
    assert torch.equal(
        back.sparse_layers()[2].router.weight, model.sparse_layers()[2].router.weight
    )
    assert any("mlp_gates.bin" in line for line in found.published.replaced)


def test_ranks_files_of_the_8_expert_variant_count_on(published, tmp_path):
    folder, model = published(style="deepspeed")
    into_one_shard(folder)
    weights = shard_of(folder)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"lora_r": 2, "lora_alpha": 6}))
    mark = ".deepspeed_experts."
    a, b = torch.randn(2, 32), torch.randn(48, 2)
    for rank in range(2):
        own = {}
        for name in [name for name in weights if mark in name]:
            head, _, rest = name.partition(mark)
            slot, _, tail = rest.partition(".")
            if int(slot) // 2 == rank:
                own[f"{head}{mark}{int(slot) % 2}.{tail}"] = weights.pop(name)
        if rank == 1:
            gate = f"model.layers.2.mlp.deepspeed_moe.experts{mark}1.gate_proj"
            own |= {f"{gate}_lora_A.weight": a, f"{gate}_lora_B.weight": b}
        torch.save(own, folder / f"{rank}_mlp_experts.bin")
    save_file(weights, folder / "model.safetensors")
    import_published(plan_of([folder]), tmp_path / "back")
    back = UniMoeForConditionalGeneration.from_pretrained(tmp_path / "back")
    for layer in (0, 2):
        new, old = (m.sparse_layers()[layer].experts.gate_up_proj for m in (back, model))
        expected = old.detach().clone()
        if layer == 2:
            expected[3, :48] += 3 * b @ a
        assert torch.allclose(new, expected, atol=1e-6)


def test_expert_files_fill_slots_in_the_order_given(published, tmp_path):
    folder, model = published()
    weights = shard_of(folder)
    files = []
    for slot in (2, 0, 2, 1):
        own = {
            f"model.layers.{layer}.mlp.{proj}_proj.weight": weights[
                f"model.layers.{layer}.mlp.experts.{slot}.{proj}_proj.weight"
            ]
            for layer in (0, 2)
            for proj in ("gate", "up", "down")
        }
        files.append(tmp_path / f"mlp_{slot}.bin")
        torch.save(own, files[-1])
    bare = {name: t for name, t in weights.items() if ".experts." not in name}
    save_file(bare, folder / "model.safetensors")
    import_published(plan_of([folder], experts=files), tmp_path / "back")
    back = UniMoeForConditionalGeneration.from_pretrained(tmp_path / "back")
    old = model.sparse_layers()[0].experts.down_proj
    assert torch.equal(back.sparse_layers()[0].experts.down_proj, old[[2, 0, 2, 1]])


def refused(folders, out, kind, **more):
    with pytest.raises(kind) as told:
        import_published(plan_of(folders, **more), out)
    assert not out.exists()
    return f"{told.value}"


def test_all_gaps_are_told_at_once_and_nothing_is_written(published, tmp_path):
    folder, _ = published()
    weights = shard_of(folder)
    del weights["model.norm.weight"]
    del weights["model.layers.0.mlp.experts.2.gate_proj.weight"]
    weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(5, 5)
    weights["model.something.new"] = torch.zeros(1)
    save_file(weights, folder / "model.safetensors")
    said = refused([folder], tmp_path / "back", LineageError)
    assert "missing: language_model.model.norm.weight" in said
    assert "missing: language_model.model.layers.0.mlp.experts.gate_up_proj[2] gate" in said
    assert "model.layers.1.mlp.up_proj.weight is (5, 5)" in said
    assert "unknown: model.something.new" in said


@pytest.mark.parametrize(
    ("what", "file", "connector"),
    [
        ("speech", "mm_projector.bin", "image_connector"),
        ("speech", "mm_audio_aligner.bin", "speech_connector"),
        ("audio", "mm_audio_aligner.bin", "audio_connector"),
    ],
)
def test_a_connector_whose_file_is_gone_is_missing(what, file, connector, published, tmp_path):
    """config.json names the encoder, so a model without it is not the one published."""
    folder, model = published(what)
    (folder / file).unlink()
    assert "missing: " in refused([folder], tmp_path / "back", LineageError)
    expected = [name for name in sorted(model.state_dict()) if name.startswith(connector)]
    assert list(plan_of([folder]).plan.missing) == expected


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("speech", "model.query_tokens"),
        ("speech", "model.mm_audio_aligner.decoder.audio_decoder.layers.0.fc1.weight"),
        ("speech", "model.mm_audio_aligner.decoder.audio_decoder.embed_positions.weight"),
        ("audio", "model.mm_audio_aligner.query_tokens"),
        (
            "audio",
            "model.mm_audio_aligner.qformer.qformer.encoder.layer.0.intermediate_query.dense.weight",
        ),
    ],
)
def test_a_gap_in_an_aligner_is_told_with_every_other_key(what, name, published, tmp_path, capsys):
    folder, _ = published(what)
    file = folder / "mm_audio_aligner.bin"
    weights = torch.load(file, weights_only=True)
    del weights[name]
    torch.save(weights, file)
    out = tmp_path / "back"
    assert main(["import-official", str(folder), "--out", str(out)]) == 5
    told = capsys.readouterr()
    ours = place(name, what).target
    assert f"missing  {ours}\n" in told.out
    assert told.out.count("used     published/mm_audio_aligner.bin: ") == len(weights)
    assert f"missing: {ours}" in told.err
    assert "config.json describes no network" not in told.err
    assert not out.exists()


def test_json_tells_every_key_before_a_gap_is_refused(published, tmp_path, capsys):
    folder, _ = published()
    weights = shard_of(folder)
    del weights["model.norm.weight"]
    weights["model.something.new"] = torch.zeros(1)
    save_file(weights, folder / "model.safetensors")
    assert main(["import-official", str(folder), "--out", str(tmp_path / "back"), "--json"]) == 5
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["missing"] == ["language_model.model.norm.weight"]
    assert told["unknown"] == ["published/model.safetensors: model.something.new"]
    assert "published/model.safetensors: lm_head.weight" in told["used"]
    assert "missing: language_model.model.norm.weight" in said.err
    assert not (tmp_path / "back").exists()


def test_a_missing_shard_is_named(published, tmp_path):
    folder, _ = published()
    index = {"weight_map": dict.fromkeys(shard_of(folder), "model-00001-of-00002.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002" in refused([folder], tmp_path / "back", DataError)


def test_an_adapter_for_another_base_is_refused(published, tmp_path):
    folder, _ = published()
    name = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    torch.save(
        {
            name.format(0, "A"): torch.zeros(2, 16),
            name.format(0, "B"): torch.zeros(16, 2),
            name.format(9, "A"): torch.zeros(2, 32),
            name.format(9, "B"): torch.zeros(32, 2),
            name.format(1, "A"): torch.zeros(2, 32),
        },
        folder / "adapter_model.bin",
    )
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 4}))
    said = refused([folder], tmp_path / "back", LineageError)
    assert "makes (16, 16), not (32, 32)" in said
    assert "there is no model.layers.9.self_attn.q_proj.weight" in said
    assert "has no B" in said


class Runs:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickle_that_wants_to_run_code_is_refused(published, tmp_path, capsys):
    folder, _ = published()
    torch.save({"model.layers.0.mlp.gate.weight": Runs()}, folder / "mlp_gates.bin")
    said = refused([folder], tmp_path / "back", DataError)
    (folder / "mlp_gates.bin").write_bytes(pickle.dumps(Runs()))
    assert "code" in said
    refused([folder], tmp_path / "back", DataError)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "file",
    ["model.safetensors", "mm_projector.bin", "config.json", "vision_tower/config.json"],
)
def test_a_file_cut_short_is_named(published, tmp_path, file):
    folder, _ = published()
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: len(data) // 2])
    assert file in refused([folder], tmp_path / "back", DataError)


@pytest.mark.parametrize(
    ("file", "key"), [("config.json", "hidden_size"), ("audio_tower/config.json", "d_model")]
)
def test_a_size_that_is_none_is_named_with_its_file(published, tmp_path, file, key):
    folder, _ = published()
    told = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**told, key: "wide"}))
    assert f"{file} describes no network" in refused([folder], tmp_path / "back", ConfigError)


def test_a_tower_that_is_nowhere_is_asked_for(published, tmp_path):
    folder, _ = published()
    (folder / "vision_tower").rename(tmp_path / "clip")
    said = refused([folder], tmp_path / "back", ConfigError)
    assert "--vision-tower" in said
    import_published(plan_of([folder], vision_tower=tmp_path / "clip"), tmp_path / "back")


def test_what_no_published_variant_has_is_not_exported(tmp_path):
    model = model_that_hears("speech", frame_time_embedding=True)
    model.save_pretrained(tmp_path / "ours")
    with pytest.raises(UniMoeError, match="frame_time"):
        export_published(tmp_path / "ours", tmp_path / "published")
    assert not (tmp_path / "published").exists()


def test_nothing_is_written_over(published, tmp_path):
    folder, _ = published()
    (tmp_path / "back").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        import_published(plan_of([folder]), tmp_path / "back")
