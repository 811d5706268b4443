import pytest
import torch
from tiny_model import medium, network

from uni_moe.data.media import decode_image, decode_sound
from uni_moe.errors import DataError
from uni_moe.evaluate import ask
from uni_moe.evaluate.ask import answer, decoded

NOTHING = {"images": [], "videos": [], "audio": [], "speech": []}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model, processor = network()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for number, kind in enumerate(("image", "video", "audio", "speech")):
        found[kind] = folder / f"{kind}.bin"
        found[kind].write_bytes(medium(kind, number))
    return found


def test_an_answer_is_what_greedy_generation_says(folder, files):
    model, processor = network()
    message = {"role": "user", "content": [{"type": "image"}, {"type": "speech"}]}
    message["content"].insert(1, {"type": "text", "text": "\n"})
    message["content"].append({"type": "text", "text": "\nwhich?"})
    media = [
        ("image", decode_image(files["image"].read_bytes())),
        ("speech", decode_sound([files["speech"].read_bytes()])),
    ]
    ids = processor([[message]], [media], to_answer=True)
    said = []
    for _ in range(5):
        with torch.no_grad():
            said.append(int(model(**ids).logits[0, -1].argmax()))
        ids["input_ids"] = torch.cat([ids["input_ids"], torch.tensor([said[-1:]])], 1)
        ids["attention_mask"] = torch.ones_like(ids["input_ids"])
    shown = NOTHING | {"images": [files["image"]], "speech": [files["speech"]]}
    expected = processor.tokenizer.decode(said, skip_special_tokens=True).strip()
    assert answer(folder, "which?", **shown, max_new_tokens=5) == expected


def test_a_question_alone_and_one_with_every_kind_are_answered(folder, files):
    assert isinstance(answer(folder, "which?", **NOTHING, max_new_tokens=3), str)
    all_kinds = {
        "images": [files["image"]] * 2,
        "videos": [files["video"]],
        "audio": [files["audio"]],
        "speech": [files["speech"]],
    }
    assert isinstance(answer(folder, "which?", **all_kinds, max_new_tokens=3), str)


def test_media_stand_in_the_order_image_audio_speech_video(folder, monkeypatch):
    shown = []
    monkeypatch.setattr(
        ask, "decoded", lambda given, frames: (shown.extend(given), decoded(given, frames))[1]
    )
    answer(folder, "which?", **NOTHING, max_new_tokens=1)
    assert shown == ["image", "audio", "speech", "video"]


def test_all_bad_files_are_named_at_once(files, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    given = {"image": [bad, files["image"]], "speech": [tmp_path / "none.wav"], "audio": [tmp_path]}
    with pytest.raises(DataError) as caught:
        decoded(given, 8)
    assert caught.value.what.startswith("3 file(s)")
    for name in ("bad.png", "none.wav", str(tmp_path)):
        assert name in str(caught.value)


def test_a_file_too_large_to_read_at_once_is_refused(files, monkeypatch):
    monkeypatch.setattr(ask, "MAX_FILE_BYTES", 10)
    with pytest.raises(DataError, match="more than 10 bytes"):
        decoded({"image": [files["image"]]}, 8)


def test_a_model_without_an_encoder_says_so(tmp_path, files):
    model, processor = network()
    model.config.audio_config = None
    model.config.audio_connector = None
    blind = type(model)(model.config)
    blind.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    shown = NOTHING | {"audio": [files["audio"]]}
    with pytest.raises(DataError, match="takes no audio"):
        answer(tmp_path, "which?", **shown, max_new_tokens=3)
