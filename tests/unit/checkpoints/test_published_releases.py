"""Checkpoints as they were released: a base, what was trained on it, encoders from elsewhere."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoProcessor,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    LlamaConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

import uni_moe.model.auto  # noqa: F401 - AutoProcessor learns ours
from tests.unit.checkpoints.conftest import load
from tests.unit.checkpoints.published import into_one_shard, shard_of
from uni_moe.checkpoints.published_export import export_published
from uni_moe.checkpoints.published_import import import_published, plan_of
from uni_moe.cli import main
from uni_moe.errors import ConfigError, DataError, LineageError
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.published.config import config_from_published, config_to_published
from uni_moe.model.published.unpublished import unpublished
from uni_moe.train.tokenizer import train_tokenizer

ATTENTION = "model.layers.1.self_attn.q_proj"


def tokenizer(words, folder):
    train_tokenizer([words] * 9, vocab_size=300).save_pretrained(folder)


def as_pickled_shards(folder):
    """Turn a folder's shard into two of torch's own format, as released."""
    weights = shard_of(folder)
    (folder / "model.safetensors").unlink()
    places, names = {}, sorted(weights)
    for i, own in enumerate((names[::2], names[1::2]), 1):
        file = f"pytorch_model-0000{i}-of-00002.bin"
        torch.save({name: weights[name] for name in own}, folder / file)
        places |= dict.fromkeys(own, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.fixture
def release(published, tmp_path):
    """Return base, e2, the two encoders' whole folders, the model, and what e2 should change."""
    base, model = published()
    as_pickled_shards(base)
    tokenizer("USER: what is it? ASSISTANT: a red cat", base)
    clip, whisper = tmp_path / "a-clip", tmp_path / "a-whisper"  # they come before the base
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = CLIPConfig(
        text_config=CLIPTextConfig(**small, num_attention_heads=4, vocab_size=60).to_dict(),
        vision_config=CLIPVisionConfig(
            **small, num_attention_heads=4, image_size=16, patch_size=8
        ).to_dict(),
    )
    CLIPModel(config).save_pretrained(clip)
    size = {"shortest_edge": 16}, {"height": 16, "width": 16}
    CLIPImageProcessorPil(size=size[0], crop_size=size[1]).save_pretrained(clip)
    special = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    heard = {**model.config.speech_config.to_dict(), "vocab_size": 90, "decoder_layers": 2}
    heard |= dict.fromkeys(special, 1)
    WhisperModel(WhisperConfig(**{**heard, "decoder_ffn_dim": 64})).save_pretrained(whisper)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(whisper)
    for folder in (clip, whisper):
        tokenizer("another model's words", folder)
    e2 = tmp_path / "e2"
    e2.mkdir()
    a, b = torch.randn(3, 32), torch.randn(32, 3)
    start = f"base_model.model.{ATTENTION}.lora_"
    torch.save({f"{start}A.weight": a, f"{start}B.weight": b}, e2 / "adapter_model.bin")
    (e2 / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 6}))
    (e2 / "config.json").write_text((base / "config.json").read_text())
    for name in ("vision_tower", "audio_tower"):
        for file in (base / name).iterdir():
            file.unlink()
        (base / name).rmdir()
    return base, e2, clip, whisper, model, 2 * b @ a


def plan(base, e2, clip, whisper, **words):
    return plan_of([base, e2], vision_tower=clip, audio_tower=whisper, **words)


def test_a_release_becomes_one_model_with_its_own_tokenizer(release, tmp_path):
    *folders, model, delta = release
    import_published(plan(*folders), tmp_path / "out")
    out = load(tmp_path / "out")
    name = f"language_model.{ATTENTION}.weight"
    expected = model.state_dict()[name] + delta
    torch.testing.assert_close(out.state_dict()[name], expected, atol=1e-6, rtol=0)
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.tokenizer.tokenize("a red cat") == ["a", "Ġred", "Ġcat"]
    assert processor.image_processor.crop_size["height"] == 16
    assert processor.system_prompt.startswith("A chat between a curious user")
    for part in ("vision_tower", "speech_tower"):
        assert any(n.startswith(part) for n in out.state_dict())


def test_every_key_of_every_file_is_told(release, capsys, tmp_path):
    base, e2, clip, whisper, _, _ = release
    words = ["import-official", e2, "--base", base, "--vision-tower", clip]
    words += ["--audio-tower", whisper, "--out", tmp_path / "out"]
    assert main(list(map(str, words))) == 0
    lines = capsys.readouterr().out.splitlines()
    stored = [
        *((f, torch.load(f, weights_only=True)) for f in (*base.glob("*.bin"), *e2.glob("*.bin"))),
        *((f, load_file(f)) for f in (*clip.glob("*.safetensors"), *whisper.glob("*.safetensors"))),
    ]
    fates = "used|ignored|merged|replaced"
    found = re.compile(rf"(?:{fates}) +(\S+: \S+?)(?:: .*| -> .*| into .*| \(by .*)?")
    told = [match[1] for line in lines if (match := found.fullmatch(line))]
    assert sorted(told) == sorted(
        f"{file.parent.name}/{file.name}: {name}" for file, tensors in stored for name in tensors
    )
    ignored = [line for line in lines if line.startswith("ignored")]
    assert any("text_model" in line and "never run" in line for line in ignored)
    assert any("decoder" in line and "encoder alone" in line for line in ignored)
    merged = [line for line in lines if line.startswith("merged")]
    assert len(merged) == 2
    assert lines[-1].startswith("wrote ")


def test_json_is_all_that_is_printed_when_it_is_asked_for(release, capfd, tmp_path):
    base, e2, clip, whisper, _, _ = release
    words = [
        "import-official",
        e2,
        "--base",
        base,
        "--vision-tower",
        clip,
        "--audio-tower",
        whisper,
    ]
    capfd.readouterr()
    assert main([str(w) for w in (*words, "--out", tmp_path / "out", "--json")]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["processor"]
    assert set(told["merged"].values()) == {f"{ATTENTION}.weight"}
    assert len(told["read"]) == 2 + 3 + 1 + 2  # shards, connectors and gates, the adapter, encoders


def test_a_model_without_a_tokenizer_is_told_to_have_no_processor(release, tmp_path):
    base, *rest = release
    (base / "tokenizer_config.json").unlink()
    found = plan(base, *rest[:3])
    assert "the model gets no processor" in found.text()
    import_published(found, tmp_path / "out")
    assert not (tmp_path / "out" / "processor_config.json").exists()


def refused(kind, out, *folders, **words):
    with pytest.raises(kind) as error:
        import_published(plan(*folders, **words), out)
    assert not out.exists()
    return str(error.value)


def test_an_encoder_that_does_not_say_how_media_are_prepared_is_refused(release, tmp_path):
    base, e2, clip, whisper, _, _ = release
    (clip / "preprocessor_config.json").unlink()
    said = refused(ConfigError, tmp_path / "out", base, e2, clip, whisper)
    assert "There is no preprocessor_config.json in" in said


def test_a_tokenizer_that_nobody_can_read_is_refused(release, tmp_path):
    base, *rest = release
    (base / "tokenizer.json").unlink()
    (base / "tokenizer.model").write_bytes(b"no tokenizer")
    said = refused(ConfigError, tmp_path / "out", base, *rest[:3])
    assert "sentencepiece" in said


def test_the_tokenizer_of_a_llama_folder_is_read(release, tmp_path):
    """Released bases hold a tokenizer.model; every text starts with a space in it."""
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    base, *rest = release
    for file in base.glob("tokenizer*"):
        file.unlink()
    with (base / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a red cat", "what is it"] * 20),
            model_writer=file,
            model_type="bpe",
            vocab_size=30,
            pad_id=-1,
            minloglevel=9,
        )
    told = {"tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>", "legacy": False}
    told |= {"bos_token": "<s>", "eos_token": "</s>"}
    (base / "tokenizer_config.json").write_text(json.dumps(told))
    import_published(plan(base, *rest[:3]), tmp_path / "out")
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "out").tokenizer
    assert tokenizer.pad_token == "<unk>"
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(base / "tokenizer.model"))
    ids = tokenizer("a red cat", add_special_tokens=False)["input_ids"]
    assert ids == theirs.encode("a red cat")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"use_rslora": True}, "`use_rslora` is True"),
        ({"rank_pattern": {"q_proj": 4}}, "`rank_pattern` is"),
        ({"peft_type": "IA3"}, "`peft_type` is 'IA3'"),
        ({"lora_alpha": None}, "`lora_alpha` is None, no number above 0"),
    ],
)
def test_an_adapter_that_is_more_than_a_product_is_refused(changed, said, release, tmp_path):
    base, e2, *rest = release
    file = e2 / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    assert said in refused(DataError, tmp_path / "out", base, e2, *rest[:2])


def test_an_adapter_whose_rank_is_not_the_configurations_is_refused(release, tmp_path):
    base, e2, *rest = release
    (e2 / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 16}))
    said = refused(LineageError, tmp_path / "out", base, e2, *rest[:2])
    assert "not of rank 8" in said


def test_the_8_expert_release_stands_on_the_4_expert_base(release, tmp_path):
    """Slots come from files, gates and adapters from the ranks, the rest from a base of four."""
    base, e2, clip, whisper, _, _ = release
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape):
        return torch.randn(shape, generator=generator) * 0.1

    shapes = {"gate": (48, 32), "up": (48, 32), "down": (32, 48)}
    slots, files = [], []
    for slot in range(8):
        own = {(i, part): drawn(*shape) for i in (0, 2) for part, shape in shapes.items()}
        file = tmp_path / f"mlp_{slot}.bin"
        saved = {f"model.layers.{i}.mlp.{part}_proj.weight": t for (i, part), t in own.items()}
        saved["model.layers.1.mlp.up_proj.weight"] = drawn(48, 32)  # a dense layer here
        torch.save(saved, file)
        slots.append(own)
        files.append(file)
    gates = {i: drawn(8, 32) for i in (0, 2)}
    torch.save(
        {f"model.layers.{i}.mlp.deepspeed_moe.gate.wg.weight": g for i, g in gates.items()},
        e2 / "mlp_gates.bin",
    )
    for rank in range(4):  # two experts each
        name = "model.layers.2.mlp.deepspeed_moe.experts.deepspeed_experts.1.gate_proj_lora_"
        halves = {f"{name}A.weight": drawn(2, 32), f"{name}B.weight": drawn(48, 2)}
        slot = 2 * rank + 1
        slots[slot][2, "gate"] = slots[slot][2, "gate"] + 3 * (
            halves[f"{name}B.weight"] @ halves[f"{name}A.weight"]
        )
        torch.save(halves, e2 / f"{rank}_mlp_experts.bin")
    told = json.loads((e2 / "config.json").read_text())
    told |= {"num_experts": 8, "lora_r": 2, "lora_alpha": 6, "moe_type": "sparse", "moe_stride": 2}
    told |= {"aux_balance_loss": True, "aux_balance_loss_coef": 0.01}
    told |= {"aux_multimodal_loss": True, "aux_multimodal_loss_coef": 0.1}
    told |= {"image_expert_indices": [4], "audio_expert_indices": [5, 7]}
    (e2 / "config.json").write_text(json.dumps(told))
    found = plan(base, e2, clip, whisper, experts=files)
    assert "mlp_7.bin: model.layers.1.mlp.up_proj.weight: its layer is no mixture" in found.text()
    import_published(found, tmp_path / "out")
    out = load(tmp_path / "out")
    assert (out.config.num_experts, out.config.sparse_layers) == (8, [0, 2])
    assert out.config.expert_targets == {"image": [4], "speech": [5, 7]}
    assert (out.config.balance_coefficient, out.config.target_coefficient) == (0.01, 0.1)
    for layer, mixture in out.sparse_layers().items():
        assert torch.equal(mixture.router.weight, gates[layer])
        for slot, own in enumerate(slots):
            gate_up = torch.cat([own[layer, "gate"], own[layer, "up"]])
            torch.testing.assert_close(mixture.experts.gate_up_proj[slot].detach(), gate_up)
            assert torch.equal(mixture.experts.down_proj[slot], own[layer, "down"])


def test_slots_that_no_file_fills_are_missing(release, tmp_path):
    base, e2, clip, whisper, _, _ = release
    gates = {
        f"model.layers.{i}.mlp.deepspeed_moe.gate.wg.weight": torch.zeros(8, 32) for i in (0, 2)
    }
    torch.save(gates, e2 / "mlp_gates.bin")
    said = refused(LineageError, tmp_path / "out", base, e2, clip, whisper)
    assert "missing: language_model.model.layers.0.mlp.experts.down_proj[4] down" in said


def test_an_adapter_on_an_adapter_is_merged_into_it_first(published, tmp_path):
    """The 8-expert training puts peft's adapters on the halves that are built into dense layers."""
    folder, model = published(style="deepspeed")
    into_one_shard(folder)
    name = "model.layers.1.mlp.up_proj"
    weights = shard_of(folder)
    a, b = torch.randn(2, 32), torch.randn(48, 2)
    save_file(
        {**weights, f"{name}_lora_A.weight": a, f"{name}_lora_B.weight": b},
        folder / "model.safetensors",
    )
    told = json.loads((folder / "config.json").read_text()) | {"lora_r": 2, "lora_alpha": 4}
    (folder / "config.json").write_text(json.dumps(told))
    outer = {}
    for half, (rows, columns) in {"A": (2, 32), "B": (48, 2)}.items():
        start = f"base_model.model.{name}_lora_{half}.lora_"
        outer[f"{start}A.weight"] = torch.randn(3, columns)
        outer[f"{start}B.weight"] = torch.randn(rows, 3)
    torch.save(outer, folder / "adapter_model.bin")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 6}))
    import_published(plan_of([folder]), tmp_path / "out")

    def grown(half, tensor):
        start = f"base_model.model.{name}_lora_{half}.lora_"
        return tensor + 2 * outer[f"{start}B.weight"] @ outer[f"{start}A.weight"]

    target = f"language_model.{name}.weight"
    expected = model.state_dict()[target] + 2 * grown("B", b) @ grown("A", a)
    found = load(tmp_path / "out").state_dict()[target]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_halves_in_two_shards_are_one_adapter(published, tmp_path):
    folder, model = published(style="deepspeed")
    into_one_shard(folder)
    name = "model.layers.0.mlp.deepspeed_moe.experts.deepspeed_experts.3.down_proj"
    a, b = torch.randn(2, 48), torch.randn(32, 2)
    halves = {f"{name}_lora_A.weight": a, f"{name}_lora_B.weight": b}
    save_file({**shard_of(folder), **halves}, folder / "model.safetensors")
    as_pickled_shards(folder)
    shards = [torch.load(f, weights_only=True) for f in sorted(folder.glob("pytorch_model-*.bin"))]
    assert [f"{name}_lora_A.weight" in shard for shard in shards].count(True) == 1
    assert not any(set(halves) <= set(shard) for shard in shards)
    told = json.loads((folder / "config.json").read_text()) | {"lora_r": 2, "lora_alpha": 4}
    (folder / "config.json").write_text(json.dumps(told))
    import_published(plan_of([folder]), tmp_path / "out")
    old, new = (m.sparse_layers()[0].experts.down_proj for m in (model, load(tmp_path / "out")))
    torch.testing.assert_close(new[3].detach(), old[3].detach() + 2 * b @ a, atol=1e-5, rtol=0)


def test_a_later_files_half_takes_over_from_the_earlier(published, tmp_path):
    """Built-in halves are parameters of the network: they are loaded over each other."""
    folder, model = published(style="deepspeed")
    into_one_shard(folder)
    name = "model.layers.1.mlp.up_proj"
    a, b = torch.randn(2, 32), torch.randn(48, 2)
    halves = {f"{name}_lora_A.weight": a, f"{name}_lora_B.weight": torch.ones(48, 2)}
    save_file({**shard_of(folder), **halves}, folder / "model.safetensors")
    torch.save({f"{name}_lora_B.weight": b}, folder / "non_lora_trainables.bin")
    told = json.loads((folder / "config.json").read_text()) | {"lora_r": 2, "lora_alpha": 4}
    (folder / "config.json").write_text(json.dumps(told))
    plan = plan_of([folder])
    import_published(plan, tmp_path / "out")
    target = f"language_model.{name}.weight"
    expected = model.state_dict()[target] + 2 * b @ a
    found = load(tmp_path / "out").state_dict()[target]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert any("up_proj_lora_B" in line for line in plan.published.replaced)


def adapter_on(target, folder, rows):
    """Write an adapter of peft's for one weight; return its delta."""
    a, b = torch.randn(3, 32), torch.randn(rows, 3)
    start = f"base_model.model.{target.removesuffix('.weight')}.lora_"
    torch.save({f"{start}A.weight": a, f"{start}B.weight": b}, folder / "adapter_model.bin")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 6}))
    return 2 * b @ a


def test_gates_are_read_after_the_merge_and_overwrite_it(published, tmp_path):
    folder, _ = published()
    name, gate = "model.layers.0.mlp.gate.weight", torch.randn(4, 32)
    adapter_on(name, folder, rows=4)
    torch.save({name: gate}, folder / "mlp_gates.bin")
    found = plan_of([folder])
    import_published(found, tmp_path / "out")
    assert torch.equal(load(tmp_path / "out").sparse_layers()[0].router.weight, gate)
    halves = [line for line in found.text().splitlines() if ".lora_" in line]
    assert [line.partition(" ")[0] for line in halves] == ["replaced", "replaced"]
    assert all(line.endswith("(by published/mlp_gates.bin)") for line in halves)


def test_an_adapter_trained_on_an_earlier_folders_aligner_is_merged(published, tmp_path):
    folder, model = published()
    e2 = tmp_path / "e2"
    e2.mkdir()
    name = "model.mm_audio_aligner.projector.weight"
    delta = adapter_on(name, e2, rows=32)
    import_published(plan_of([folder, e2]), tmp_path / "out")
    found = load(tmp_path / "out").speech_connector.projector.weight
    torch.testing.assert_close(found, model.speech_connector.projector.weight + delta)
    own = torch.randn(32, 32)
    torch.save({name: own}, e2 / "mm_audio_aligner.bin")
    import_published(plan_of([folder, e2]), tmp_path / "later")
    assert torch.equal(load(tmp_path / "later").speech_connector.projector.weight, own)


def test_the_8_expert_loader_merges_after_the_gates(published, tmp_path):
    folder, _ = published(style="deepspeed")
    into_one_shard(folder)
    name, gate = "model.layers.0.mlp.deepspeed_moe.gate.wg.weight", torch.randn(4, 32)
    delta = adapter_on(name, folder, rows=4)
    torch.save({name: gate}, folder / "mlp_gates.bin")
    import_published(plan_of([folder]), tmp_path / "out")
    found = load(tmp_path / "out").sparse_layers()[0].router.weight
    torch.testing.assert_close(found.detach(), gate + delta)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 500_000.0},
        {"rope_theta": 10_000.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {},
    ],
)
def test_how_positions_turn_is_read_and_told(published, rope):
    folder, model = published()
    told = json.loads((folder / "config.json").read_text())
    del told["rope_theta"], told["rope_scaling"]
    shapes = {name: source.shape for name, source in plan_of([folder]).published.weights.items()}
    towers = {"vision": model.config.vision_config, "speech": model.config.speech_config}
    config = config_from_published({**told, **rope}, shapes, **towers)
    found = config.text_config.rope_parameters
    assert found["rope_theta"] == rope.get("rope_theta", 10_000.0)
    assert found.get("factor") == rope.get("rope_scaling", {}).get("factor")
    back = config_to_published(config, "experts")
    assert back["rope_theta"] == found["rope_theta"]
    assert (back["rope_scaling"] is None) == ("rope_scaling" not in rope)
    again = config_from_published(back, shapes, **towers)
    assert again.text_config.rope_parameters == found


@pytest.mark.parametrize("what", ["speech", "audio"])
def test_a_round_trip_keeps_what_the_weights_do_not_show(what, published, tmp_path):
    targets = {"image": [0], what: [1, 2]}
    folder, model = published(
        what,
        "deepspeed",
        divergence_coefficient=0.5,
        target_coefficient=0.25,
        expert_targets=targets,
        experts_per_token=3,
        vision_select_layer=-1,
    )
    import_published(plan_of([folder]), tmp_path / "back")
    back = load(tmp_path / "back").config
    same = ("expert_targets", "divergence_coefficient", "target_coefficient", "balance_coefficient")
    for name in (*same, "experts_per_token", "vision_select_layer", f"{what}_connector"):
        ours, theirs = getattr(model.config, name), getattr(back, name)
        assert theirs == ({**ours, **theirs} if isinstance(ours, dict) else ours), name
    assert back.expert_targets == targets


@pytest.mark.parametrize("what", ["speech", "audio"])
def test_heads_of_a_connector_come_back_where_its_encoder_has_others(what, published, tmp_path):
    connector = {"query_tokens": 4, "layers": 2, "width": 32, "heads": 2, "intermediate_size": 64}
    own = {"speech": {"positions": 64}, "audio": {}}[what]
    shape = {**connector, **own, "window_s": 30}
    folder, _ = published(what, **{f"{what}_connector": shape})
    import_published(plan_of([folder]), tmp_path / "back")
    back = getattr(load(tmp_path / "back").config, f"{what}_connector")
    assert back["heads"] == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"standardize_features": True}, "standardize_features"),
        ({"video_frames": 4}, "it sees 4 frames of a film, not 8"),
        ({"frame_time_embedding": True}, "frame_time_embedding"),
        ({"modality_adapters": True}, "modality_adapters: the 4-expert variants have none"),
        ({"sparse_layers": [1, 3]}, "no published code has layers [1, 3] alone as mixtures"),
        (
            {"expert_targets": {"text": [0], "image": [1], "audio": [2]}},
            "no published field wishes experts for audio, text",
        ),
    ],
)
def test_what_the_published_code_would_compute_otherwise_is_not_exported(
    changed, said, published, tmp_path, capsys
):
    with pytest.raises(LineageError):
        published(**changed)
    assert not (tmp_path / "published").exists()
    words = ["export-official", tmp_path / "ours", "--out", tmp_path / "published"]
    assert main(list(map(str, words))) == 5
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("style", "layers", "can"),
    [
        ("experts", "all", True),
        ("experts", [0, 2], True),
        ("experts", [0], False),
        ("experts", [0, 1], False),
        ("experts", [], True),
        ("deepspeed", "all", True),
        ("deepspeed", [0, 2], True),
        ("deepspeed", [0, 3], True),
        ("deepspeed", [0], True),
        ("deepspeed", [2, 3], False),
    ],
)
def test_a_style_can_have_some_layouts_of_mixtures(style, layers, can):
    config = UniMoeConfig(LlamaConfig(num_hidden_layers=4), sparse_layers=layers)
    assert (unpublished(config, style) == []) is can
    if can and style == "deepspeed":
        stride = config_to_published(config, style)["moe_stride"]
        assert config.sparse_layers == list(range(0, 4, stride))


def test_a_token_that_visits_more_experts_than_there_are_is_refused(published):
    folder, _ = published()
    told = json.loads((folder / "config.json").read_text())
    for wrong in (None, 5, "2"):
        (folder / "config.json").write_text(json.dumps({**told, "num_experts_per_tok": wrong}))
        with pytest.raises(ConfigError, match=r"num_experts_per_tok: .*but the weights have 4"):
            plan_of([folder])


def test_two_tensors_for_one_place_are_refused(published, tmp_path):
    folder, _ = published("speech", "deepspeed", modality_adapters=True)
    weights = torch.load(folder / "fm_adapter.bin", weights_only=True)
    name = "model.layers.0.mlp.deepspeed_moe.fm_audio.bias"
    weights[name.replace("audio", "speech")] = weights[name].clone()
    torch.save(weights, folder / "fm_adapter.bin")
    with pytest.raises(LineageError, match="have one place"):
        import_published(plan_of([folder]), tmp_path / "back")


def test_a_release_that_hears_sounds_gets_a_processor_too(published, tmp_path):
    folder, _ = published("audio")
    tokenizer("USER: what is it? ASSISTANT: a red cat", folder)
    size = {"shortest_edge": 16}, {"height": 16, "width": 16}
    pictures = CLIPImageProcessorPil(size=size[0], crop_size=size[1])
    pictures.save_pretrained(folder / "vision_tower")
    import_published(plan_of([folder]), tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    text = "USER: <audio> what is it? ASSISTANT:"
    batch = processor(text=text, audio=torch.zeros(5_000).numpy())
    assert batch["audio_fbank"].shape == (1, 2998, 128)
    with pytest.raises(DataError, match="takes no speech"):
        processor(text="<speech>", speech=torch.zeros(5_000).numpy())


@pytest.fixture
def beats(published, tmp_path):
    folder, model = published("audio")
    file = tmp_path / "BEATs.pt"
    (folder / "audio_tower.pt").rename(file)
    return file, model


def test_a_beats_file_becomes_a_folder_that_a_foundation_takes(beats, tmp_path, capsys):
    from uni_moe.train.pretrained import load_tower, look_at

    file, model = beats
    out = tmp_path / "beats"
    assert main(["import-official", str(file), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "used     BEATs.pt: encoder.pos_conv.0.weight_v -> " in told
    assert "relative_attention_bias.weight: all layers share the first one's table" in told
    look_at("audio", out, str(out))
    tower = load_tower("audio", out)
    expected = model.audio_tower.state_dict()
    assert tower.state_dict().keys() == expected.keys()
    assert all(torch.equal(t, expected[n]) for n, t in tower.state_dict().items())


@pytest.mark.parametrize("flag", ["--base", "--vision-tower", "--audio-tower", "--expert"])
def test_a_beats_file_with_what_it_cannot_take_is_refused(flag, beats, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["import-official", str(beats[0]), flag, str(tmp_path), "--out", str(out)]
    assert main(words) == 2
    assert f"is a file, and is imported without {flag}." in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found["cfg"].update(deep_norm=False), "deep_norm: False is not built here"),
        (lambda found: found["model"].pop("layer_norm.bias"), "missing: audio_tower.layer_norm"),
        (lambda found: found["model"].update(predictor=torch.ones(1)), "unknown: "),
        (lambda found: found.pop("cfg"), "is no BEATs checkpoint"),
    ],
)
def test_another_beats_is_refused(change, said, beats, tmp_path, capsys):
    file, _ = beats
    found = torch.load(file, weights_only=True)
    change(found)
    torch.save(found, file)
    assert main(["import-official", str(file), "--out", str(tmp_path / "out")]) in (2, 3, 5)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_media_are_prepared_after_a_round_trip_as_before(release, tmp_path):
    *folders, _, _ = release
    import_published(plan(*folders), tmp_path / "first")
    export_published(tmp_path / "first", tmp_path / "again")
    import_published(plan_of([tmp_path / "again"]), tmp_path / "second")
    first, second = (AutoProcessor.from_pretrained(tmp_path / n) for n in ("first", "second"))
    assert first.to_dict() == second.to_dict()
