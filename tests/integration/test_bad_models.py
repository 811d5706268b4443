"""What a person gets told, by the real command, when a model or what it is asked is wrong."""

import json

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, WhisperFeatureExtractor

from tests.unit.checkpoints.published import model_that_hears
from uni_moe.checkpoints.published_export import export_published
from uni_moe.cli import main
from uni_moe.errors import DataError
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.train.tokenizer import train_tokenizer

RATE = 16_000


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A small model of ours with its processor, in many shards, and itself as published."""
    root = tmp_path_factory.mktemp("ours")
    tokenizer = train_tokenizer(["USER: what is it? ASSISTANT: a red cat"] * 9, vocab_size=280)
    model = model_that_hears("speech", vocabulary=len(tokenizer), positions=300)
    model.save_pretrained(root / "model", max_shard_size="100KB")
    UniMoeProcessor.for_model(
        model.config,
        tokenizer=tokenizer,
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        feature_extractor=WhisperFeatureExtractor(),
        system_prompt="",
    ).save_pretrained(root / "model")
    export_published(root / "model", root / "published")
    return root


@pytest.fixture
def tell(capsys):
    """Run a command that must be refused; return what it says."""

    def run(*words, out=None):
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr().err
        assert code in (2, 3, 5), said
        assert said.count("error: ") == said.count("cause:") == said.count("remedy:") == 1
        assert "Traceback" not in said
        assert out is None or not out.exists()
        return said

    return run


def sound(tmp_path, seconds):
    file = tmp_path / "speech.wav"
    soundfile.write(file, np.zeros(round(RATE * seconds), dtype=np.float32), RATE)
    return file


def ask(model, question, *words):
    return ["ask", question, "--model", model, "--max-new-tokens", "2", *words]


def copied(folder, to):
    to.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_model_is_asked_without_a_workspace(ours, tmp_path, capsys):
    words = ask(ours / "model", "what is it?", "--speech", sound(tmp_path, 1), "--json")
    assert main(list(map(str, words))) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["model"] == str(ours / "model")


def test_21_windows_of_speech_are_refused(ours, tmp_path, tell):
    """20 windows of 30 s are the published limit; a model with shorter windows has the same 20."""
    said = tell(*ask(ours / "model", "what?", "--speech", sound(tmp_path, 20 * 30 + 0.001)))
    assert "A sound of more than 600 s is refused" in said
    assert "split long recordings" in said
    model = copied(ours / "model", tmp_path / "model")
    file = model / "processor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"speech_window_s": 2}))
    said = tell(*ask(model, "what?", "--speech", sound(tmp_path, 20 * 2 + 0.001)))
    assert "has 21 windows of 2 s" in said
    assert "at most 20 windows of one file" in said


def test_a_prompt_longer_than_the_context_is_refused(ours, tmp_path, tell):
    said = tell(*ask(ours / "model", "what " * 300))
    assert "positions, the language model has 300" in said
    many = [word for _ in range(80) for word in ("--image", picture(tmp_path))]
    assert "the language model has 300" in tell(*ask(ours / "model", "what?", *many))


def test_more_placeholders_than_media_are_refused(ours, tmp_path, tell):
    said = tell(*ask(ours / "model", "<image> and <image>?", "--image", picture(tmp_path)))
    assert "2 marks <image>, but 1 files for --image" in said
    assert "1 marks <speech>, but 0 files" in tell(*ask(ours / "model", "<speech> what?"))
    processor = UniMoeProcessor.from_pretrained(ours / "model", local_files_only=True)
    with pytest.raises(DataError, match="2 marks <image>, but 1 media"):
        processor(text="<image> <image>", images=[Image.open(picture(tmp_path))])


def picture(tmp_path):
    file = tmp_path / "red.png"
    Image.new("RGB", (20, 20), (200, 0, 0)).save(file)
    return file


@pytest.mark.parametrize("word", ["ask", "diff", "surgery", "export-official"])
def test_a_missing_shard_is_named(word, ours, tmp_path, tell):
    model = copied(ours / "model", tmp_path / "model")
    shard = sorted(model.glob("model-*.safetensors"))[2]
    shard.unlink()
    out = tmp_path / "out"
    words = {
        "ask": ask(model, "what?"),
        "diff": ["diff", model, ours / "model"],
        "surgery": ["surgery", model, "--clone", "0", "--out", out],
        "export-official": ["export-official", model, "--out", out],
    }[word]
    assert shard.name in tell(*words, out=out)


@pytest.mark.parametrize("word", ["ask", "diff", "surgery", "export-official"])
def test_a_shape_that_does_not_fit_is_named(word, ours, tmp_path, tell):
    model = copied(ours / "model", tmp_path / "model")
    index = json.loads((model / "model.safetensors.index.json").read_text())["weight_map"]
    name = "language_model.model.norm.weight"
    shard = load_file(model / index[name])
    save_file({**shard, name: torch.ones(7)}, model / index[name], metadata={"format": "pt"})
    out = tmp_path / "out"
    words = {
        "ask": ask(model, "what?"),
        "diff": ["diff", ours / "model", model],
        "surgery": ["surgery", model, "--permute", "3,2,1,0", "--out", out],
        "export-official": ["export-official", model, "--out", out],
    }[word]
    assert f"{name} is (7,), the network takes (32,)" in tell(*words, out=out)


class Runs:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.fixture
def published(ours, tmp_path):
    folder = copied(ours / "published", tmp_path / "published")
    for tower in ("vision_tower", "audio_tower"):
        copied(ours / "published" / tower, folder / tower)
    return folder


def spoil(folder, how):
    """Break a published checkpoint; return what the command must say."""
    weights = load_file(folder / "model.safetensors")
    if how == "a shard missing":
        index = {"weight_map": dict.fromkeys(weights, "model-00002-of-00002.safetensors")}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return "model-00002-of-00002.safetensors"
    if how == "a shape that does not fit":
        weights["lm_head.weight"] = torch.zeros(3, 3)
        save_file(weights, folder / "model.safetensors")
        return "lm_head.weight is (3, 3)"
    if how == "a pickle that wants to run code":
        torch.save({"model.query_tokens": Runs()}, folder / "mm_audio_aligner.bin")
        return "asks for code to be run"
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    halves = {name.format("A"): torch.zeros(2, 64), name.format("B"): torch.zeros(64, 2)}
    torch.save(halves, folder / "adapter_model.bin")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 4}))
    return "makes (64, 64), not (32, 32)"


@pytest.mark.parametrize(
    "how",
    [
        "a shard missing",
        "a shape that does not fit",
        "an adapter for another base",
        "a pickle that wants to run code",
    ],
)
def test_a_spoiled_checkpoint_is_not_imported(how, published, tmp_path, tell):
    said, out = spoil(published, how), tmp_path / "out"
    told = tell("import-official", published, "--out", out, out=out)
    assert said in told
    assert "code ran" not in told


def test_a_model_without_a_processor_cannot_be_asked(ours, tmp_path, tell):
    model = copied(ours / "model", tmp_path / "model")
    (model / "processor_config.json").unlink()
    assert "has no processor" in tell(*ask(model, "what?"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ask", "what?", "--model", "nowhere", "--max-new-tokens", "2"], "nowhere holds no model"),
        (["ask", "what?", "--model", "nowhere"], "--model needs --max-new-tokens"),
        (["import-official", "nowhere", "--out", "out"], "There is no folder nowhere"),
        (["export-official", "nowhere", "--out", "out"], "nowhere holds no model of ours"),
        (["surgery", "nowhere", "--undo", "--out", "out"], "nowhere holds no model of ours"),
        (["diff", "nowhere", "nowhere"], "'nowhere' names 0 artifacts"),
        (["diff", "./nowhere", "./nowhere"], "nowhere holds no model of ours"),
    ],
)
def test_what_is_not_there_is_named(words, said, tell):
    assert said in tell(*words)
