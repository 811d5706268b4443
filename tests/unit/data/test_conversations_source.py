from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from uni_moe.config import ConversationSource
from uni_moe.data.sources import open_source
from uni_moe.data.sources.base import unique_names
from uni_moe.errors import DataError
from uni_moe.records import Slot


def samples(root: Path, items: object, voice_is: str = "speech"):
    (root / "list.json").write_text(json.dumps(items), encoding="utf-8")
    media = root / "media"
    media.mkdir(exist_ok=True)
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    for name in ("a.png", "b.png", "c.wav", "d.wav", "film.mp4"):
        (media / name).write_bytes(stream.getvalue())
    (root / "outside.png").write_bytes(stream.getvalue())
    if not (media / "link.png").exists():
        (media / "link.png").symlink_to(root / "outside.png")
    config = ConversationSource("conversations", "c", "list.json", "media", "CC0", voice_is)
    return list(unique_names(open_source(config, root).samples()))


def item(*texts: str, **fields) -> dict:
    turns = [
        {"from": "human" if i % 2 == 0 else "gpt", "value": text} for i, text in enumerate(texts)
    ]
    return {"id": "1", "conversations": turns} | fields


def codes(sample) -> set[str]:
    found = {problem.code for problem in sample.problems}
    return found | {media.problem.code for media in sample.media if media.problem}


def text_of(turn) -> str:
    return "".join(f"<{p.kind}>" if isinstance(p, Slot) else p for p in turn.parts)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (item("<image>\nQ?", "A", image="a.png"), set()),
        (item("Q?", "A"), set()),
        (item("<image>Q?", "A"), {"slot_without_media"}),
        (item("Q?", "A", image="a.png"), {"media_without_slot"}),
        (item("<image>Q?", "A", image=["a.png", "b.png"]), {"media_without_slot"}),
        (item("<image>Q?", "A", image="/etc/passwd"), {"unsafe_path"}),
        (item("<image>Q?", "A", image="../outside.png"), {"unsafe_path"}),
        (item("<image>Q?", "A", image="link.png"), {"unsafe_path"}),
        (item("<image>Q?", "A", image="gone.png"), {"missing_media"}),
        (item("<image>Q?", "A", image=5), {"bad_media", "slot_without_media"}),
        (item("Q?", ""), {"empty_answer"}),
        (item("Q?"), {"no_turns"}),
        (item("Q?", "A", conversations="Q?"), {"bad_conversation"}),
        (item("Q?", "A") | {"conversations": [{"from": "cat"}]}, {"bad_conversation", "no_turns"}),
        ([1], {"not_an_object"}),
    ],
)
def test_what_is_wrong_with_an_item_stands_in_its_sample(tmp_path, value, expected):
    (sample,) = samples(tmp_path, [value])
    assert codes(sample) == expected


@pytest.mark.parametrize("voice_is", ["speech", "audio"])
def test_an_audio_mark_is_the_kind_of_voice_that_the_source_has(tmp_path, voice_is):
    value = item("<audio>\n<image>", "A", "<audio>", "B", image="a.png", voice=["c.wav", "d.wav"])
    (sample,) = samples(tmp_path, [value], voice_is)
    assert [media.kind for media in sample.media] == [voice_is, "image", voice_is]
    assert [media.names for media in sample.media] == [("c.wav",), ("a.png",), ("d.wav",)]
    assert text_of(sample.turns[2]) == f"<{voice_is}>"
    assert not codes(sample)


def test_a_film_is_a_file_or_a_list_of_frames(tmp_path):
    film = item("<video>", "A", video="film.mp4")
    frames = item("<video>", "A", video=["a.png", "b.png"], id="2")
    one, many = samples(tmp_path, [film, frames])
    assert [len(sample.media[0].members) for sample in (one, many)] == [1, 2]


def test_a_leading_answer_is_dropped(tmp_path):
    turns = [{"from": "gpt", "value": "Hello"}, *item("Q?", "A")["conversations"]]
    (sample,) = samples(tmp_path, [{"id": "1", "conversations": turns}])
    assert [turn.role for turn in sample.turns] == ["user", "assistant"]


def test_other_special_tokens_and_marks_in_answers_are_text(tmp_path):
    (sample,) = samples(tmp_path, [item("<im_start>Q</s>", "an <image> mark")])
    assert [turn.slots for turn in sample.turns] == [(), ()]
    assert sample.turns[1].text == "an <image> mark"


def test_an_item_without_a_name_is_named_by_its_content(tmp_path):
    bare = {"conversations": item("Q?", "A")["conversations"]}
    alone = samples(tmp_path, [bare])[0].name
    after = samples(tmp_path, [item("X?", "Y"), bare])[1].name
    assert alone == after


@pytest.mark.parametrize("value", [{}, [], "text"])
def test_a_file_that_is_no_list_is_refused(tmp_path, value):
    with pytest.raises(DataError, match="not a list"):
        samples(tmp_path, value)
