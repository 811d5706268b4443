from __future__ import annotations

import io
import json
import shutil
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from workspace import SHARED, ingested, rows_of

from uni_moe.config import ShardedSource
from uni_moe.data.manifest import sample_of
from uni_moe.data.media import load
from uni_moe.data.shards import ShardReader
from uni_moe.data.sources import open_source, open_sources, sharded
from uni_moe.data.sources.base import RawSample, unique_names
from uni_moe.data.sources.folders import member_loader
from uni_moe.data.sources.problems import Problem
from uni_moe.errors import DataError
from uni_moe.records import Slot

HOSTILE = SHARED / "hostile"
ASK = {"name": "ask", "prompt": "{question}", "answer_field": "answer"}


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), (200, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_set(folder: Path, *lines: str, tasks=(ASK,), **card) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")
    card = {"name": "x", "licence": "CC0", "tasks": list(tasks), **card}
    (folder / "dataset.json").write_text(json.dumps(card), encoding="utf-8")
    with tarfile.open(folder / "train-000.tar", "w") as tar:
        for name in ("a.png", "b.png", "../outside.png"):
            entry = tarfile.TarInfo(name)
            entry.size = len(png())
            tar.addfile(entry, io.BytesIO(png()))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return folder


def record(**changes) -> str:
    media = [{"type": "image", "shard": "train-000.tar", "member": "a.png"}]
    plain = {"id": "x/1", "split": "train", "media": media, "question": "Q?", "answer": "A"}
    return json.dumps({key: value for key, value in (plain | changes).items() if value != "DROP"})


PAIRS = {"name": "ask", "prompt": "{qa.question}", "answer_field": "qa.answer"}


def names(*told):
    """Return the names that samples get, and which of them have a problem."""
    raw = [RawSample(name, caption=caption) for name, caption in told]
    return [(one.name, bool(one.problems)) for one in unique_names(raw)]


def test_no_sample_has_the_name_of_anothers_caption():
    told = [("x", "words"), ("x#caption", None)]
    assert names(*told) == [("x", False), ("x#caption#2", True)]
    assert names(*reversed(told)) == [("x#caption", False), ("x#2", True)]
    assert names(("x", None), ("x#caption", None)) == [("x", False), ("x#caption", False)]
    assert names(("x", "words"), ("x#caption", "words"), ("y#caption", None)) == [
        ("x", False),
        ("x#caption#2", True),
        ("y#caption", False),
    ]


def test_each_sample_has_a_name_of_its_own():
    found = names(("x", None), ("x#2", None), ("x", None), ("x", None), ("x#2", None))
    assert [name for name, _ in found] == ["x", "x#2", "x#3", "x#4", "x#2#2"]
    assert [problem for _, problem in found] == [False, False, True, True, True]


def test_null_in_the_place_of_a_pair_leaves_its_neighbours_names(tmp_path):
    pairs = [{"question": f"Q{n}?", "answer": f"A{n}"} for n in range(3)]
    found = {}
    for name, qa in (("whole", pairs), ("less", [pairs[0], None, pairs[2]])):
        folder = write_set(tmp_path / name / "x", record(qa=qa), tasks=(PAIRS,))
        found[name] = {one.name: one for one in samples(folder)}
    assert list(found["less"]) == list(found["whole"]) == [f"1#ask.{n}" for n in range(3)]
    for place in (0, 2):
        one, other = (found[name][f"1#ask.{place}"] for name in ("whole", "less"))
        assert (one.turns, one.problems) == (other.turns, ())
    assert found["less"]["1#ask.1"].problems


def samples(folder: Path, *tasks: str):
    config = ShardedSource("sharded", "x", folder.name, tasks or ("ask",))
    return list(unique_names(open_source(config, folder.parent).samples()))


def codes(sample) -> set[str]:
    found = {problem.code for problem in sample.problems}
    return found | {media.problem.code for media in sample.media if media.problem}


def text_of(turn) -> str:
    return "".join(f"<{p.kind}>" if isinstance(p, Slot) else p for p in turn.parts)


def entry(**changes) -> list[dict]:
    return [{"type": "image", "shard": "train-000.tar", "member": "a.png"} | changes]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (record(), set()),
        (record(split="DROP"), set()),
        ('{"id": "x/1", ', {"broken_json"}),
        ('{"id": "x/1", "answer": NaN}', {"broken_json"}),
        ("[" * 100_000, {"broken_json"}),
        (r'{"id": "\ud800"}', {"broken_json"}),
        ("[1, 2, 3]", {"not_an_object"}),
        (record(id="DROP"), {"missing_id"}),
        (record(split="trian"), {"unknown_split"}),
        (record(split=["train"]), {"unknown_split"}),
        (record(media=entry(type="smell")), {"unknown_modality"}),
        (record(media=entry(type=["image"])), {"unknown_modality"}),
        (record(media={"type": "image"}), {"media_not_a_list"}),
        (record(media=["a.png"]), {"bad_media"}),
        (record(media=entry(member=5)), {"bad_media"}),
        (record(media=entry(shard="../../etc/passwd")), {"unsafe_path"}),
        (record(media=entry(shard="/etc/passwd")), {"unsafe_path"}),
        (record(media=entry(shard="linked.tar")), {"unsafe_path"}),
        (record(media=entry(set="../x")), {"unsafe_path"}),
        (record(media=entry(shard="train-999.tar")), {"missing_shard"}),
        (record(media=entry(shard="manifest.jsonl")), {"missing_shard"}),
        (record(media=entry(member="missing.png")), {"missing_member"}),
        (record(media=entry(member="link.png")), {"missing_member"}),
        (record(media=entry(member="../outside.png")), {"missing_member"}),
        (record(answer="DROP"), {"missing_answer"}),
        (record(answer={"a": 1}), {"missing_answer"}),
        (record(answer=None), {"null_answer"}),
        (record(answer=" \n"), {"empty_answer"}),
        (record(question="DROP"), {"missing_question"}),
        (record(question="<image><image> Q?"), {"slot_without_media"}),
        (record(question="<video> Q?"), {"slot_without_media", "media_without_slot"}),
        (record(frames=[5, 2]), {"bad_media"}),
        (record(media=entry(shard="s" * 300)), {"missing_shard"}),
        (record(concat_gap_ms=10**30), {"bad_media"}),
        (record(concat_gap_ms="50"), {"bad_media"}),
        (record(concat_gap_ms=True), {"bad_media"}),
    ],
)
def test_what_is_wrong_with_a_record_stands_in_its_sample(tmp_path, line, expected):
    folder = write_set(tmp_path / "x", line)
    (folder / "linked.tar").symlink_to(folder / "train-000.tar")
    (sample,) = samples(folder)
    assert codes(sample) == expected


def test_a_blank_line_is_no_record_and_a_second_name_is_told(tmp_path):
    folder = write_set(tmp_path / "x", record(), "", "  ", record())
    first, second = samples(folder)
    assert (first.name, codes(first)) == ("1#ask", set())
    assert (second.name, codes(second)) == ("1#ask#2", {"duplicate_key"})


def test_slots_stand_before_the_prompt_unless_the_text_has_marks(tmp_path):
    marked = "Look: <image> Ignore <image_pad><|im_end|></s> marks"
    folder = write_set(tmp_path / "x", record(), record(id="x/2", question=marked))
    plain, written = samples(folder)
    assert text_of(plain.turns[0]) == "<image>\nQ?"
    assert text_of(written.turns[0]) == marked
    assert written.turns[0].slots == ("image",)


def test_each_pair_of_a_list_becomes_a_sample(tmp_path):
    task = {"name": "vqa", "prompt": "{qa.0}", "answer_field": "qa.1", "choices": ["x", "y"]}
    folder = write_set(
        tmp_path / "x", record(qa=[["One?", "x"], ["Two?", "y"], ["Three?", ""]]), tasks=[task]
    )
    found = samples(folder, "vqa")
    assert [sample.name for sample in found] == ["1#vqa.0", "1#vqa.1", "1#vqa.2"]
    assert text_of(found[1].turns[0]) == "<image>\nTwo?"
    assert found[1].turns[1].text == "y"
    assert codes(found[2]) == {"empty_answer"}


@pytest.mark.parametrize(
    ("answer", "expected"), [("a dog", "a dog"), (7, "7"), (["a", "b"], "a, b"), (2.5, "2.5")]
)
def test_an_answer_becomes_text(tmp_path, answer, expected):
    folder = write_set(tmp_path / "x", record(answer=answer))
    assert samples(folder)[0].turns[1].text == expected


def test_a_field_written_in_a_question_is_not_filled_in(tmp_path):
    folder = write_set(tmp_path / "x", record(question="What is {answer}?"))
    assert text_of(samples(folder)[0].turns[0]) == "<image>\nWhat is {answer}?"


def test_all_sources_that_cannot_be_read_are_told_at_once(tmp_path):
    write_set(tmp_path / "x", record())
    (tmp_path / "bytes").mkdir()
    (tmp_path / "bytes" / "manifest.jsonl").write_bytes(b'{"id": "caf\xe9"}')
    configs = [
        ShardedSource("sharded", "gone", "nowhere", ("ask",)),
        ShardedSource("sharded", "latin", "bytes", ("ask",)),
        ShardedSource("sharded", "tasks", "x", ("ask", "smell")),
    ]
    with pytest.raises(DataError) as caught:
        open_sources(configs, tmp_path)
    assert all(word in str(caught.value) for word in ("nowhere", "not UTF-8", "smell"))


@pytest.mark.real_data
@pytest.mark.skipif(not HOSTILE.is_dir(), reason="no shared data beside the project")
def test_hostile_records_are_listed_and_judged_as_expected(tmp_path):
    cases = [
        json.loads(line)
        for line in (HOSTILE / "records.jsonl").read_text(encoding="utf-8").split("\n")
        if line
    ]
    for number, case in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(HOSTILE / "train-000.tar", folder)
        (folder / "dataset.json").write_text(json.dumps({"name": "x", "tasks": [ASK]}))
        (folder / "manifest.jsonl").write_text(case["line"] + "\n\n", encoding="utf-8")
        try:
            found = samples(folder)
        except DataError:  # the file lists nothing
            found = []
        if case["expect"] == "ok":
            assert [codes(sample) for sample in found] == [set()], case["why"]
        if case["expect"] == "error":
            assert [bool(codes(sample)) for sample in found] == [True], case["why"]


def shared(name: str, *tasks: str, keep: int, tmp_path: Path) -> dict:
    """Name a copy of a shared set with its first records only."""
    for neighbour in {"fsdd", "signdigits", "grid_s1", name}:
        target = tmp_path / neighbour
        target.mkdir(exist_ok=True)
        for shard in (SHARED / neighbour).glob("*.tar"):
            if not (target / shard.name).exists():
                shutil.copy(shard, target)
    lines = (SHARED / name / "manifest.jsonl").read_text(encoding="utf-8").split("\n")[:keep]
    (tmp_path / name / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")
    shutil.copy(SHARED / name / "dataset.json", tmp_path / name)
    return {"kind": "sharded", "name": name, "path": name, "tasks": list(tasks)}


@pytest.mark.real_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data beside the project")
def test_real_sets_are_read_whole(tmp_path):
    layout = ingested(
        tmp_path,
        shared("fsdd", "digit", "asr", keep=6, tmp_path=tmp_path),
        shared("digitmix", "mix", keep=6, tmp_path=tmp_path),
        shared("digitstrings", "asr", keep=6, tmp_path=tmp_path),
        shared("grid_s1", "lipread", "asr", "color", keep=3, tmp_path=tmp_path),
        shared("gridwords", "color", keep=12, tmp_path=tmp_path),
    )
    rows = {row["key"]: row for row in rows_of(layout)}
    assert len(rows) == 12 + 6 + 6 + 9 + 2
    assert not [row for row in rows.values() if row["problem_codes"] or not row["decode_ok"]]
    mixed = rows["digitmix/train_0000#mix"]
    assert (mixed["modality"], mixed["n_image"], mixed["n_speech"]) == ("speech", 1, 1)
    assert (mixed["group"], mixed["slots_match"]) == ("match", True)
    joined = rows["digitstrings/train_0000#asr"]
    assert (joined["n_speech"], joined["sample_rate_hz"]) == (1, 8000)
    heard, seen = rows["grid_s1/bbaf2n#asr"], rows["grid_s1/bbaf2n#color"]
    assert (heard["modality"], heard["transcript"]) == ("speech", "bin blue at f two now")
    assert (seen["modality"], seen["frames"], seen["subject"]) == ("video", 75, "s1")
    word = sample_of(rows["gridwords/bbaf2n_color#color"])
    assert word.media[0].frames == tuple(range(25, 37))
    frames = load(
        word.media[0], ShardReader(layout.samples("video")).read(word.media[0]), video_frames=8
    )
    assert len(frames) == 8
    strings = sample_of(joined)
    wave = load(
        strings.media[0],
        ShardReader(layout.samples("speech")).read(strings.media[0]),
        video_frames=8,
    )
    assert isinstance(wave, np.ndarray)
    assert len(wave) / 16000 == pytest.approx(joined["duration_s"], abs=0.001)


@pytest.mark.real_data
@pytest.mark.skipif(not HOSTILE.is_dir(), reason="no shared data beside the project")
@pytest.mark.parametrize("member", ["../outside.txt", "/tmp/absolute.txt", "link.png"])
def test_no_member_of_an_evil_tar_is_followed(member):
    assert isinstance(member_loader(HOSTILE / "evil_paths.tar", "inside.txt"), partial)
    found = member_loader(HOSTILE / "evil_paths.tar", member)
    assert isinstance(found, Problem)
    assert found.code == "missing_member"


def test_a_file_that_would_fill_the_memory_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("uni_moe.data.sources.folders.MAX_FILE_BYTES", 10)
    (sample,) = samples(write_set(tmp_path / "x", record()))
    assert codes(sample) == {"too_large"}


@pytest.mark.parametrize(("split", "caption"), [("train", "a hand shows two"), ("test", None)])
def test_a_caption_is_made_for_training_records_alone(split, caption):
    assert sharded._caption("a hand shows {label}", {"label": "two", "split": split}) == caption
    assert sharded._caption(None, {"caption": "own", "split": split}) == "own"


def test_a_caption_that_fits_no_record_is_told(tmp_path):
    write_set(tmp_path / "x", record(meta={"what": "cat"}))
    right = ShardedSource("sharded", "x", "x", ("ask",), caption="a {meta.what}")
    assert [one.caption for one in open_source(right, tmp_path).samples()] == ["a cat"]
    wrong = ShardedSource("sharded", "x", "x", ("ask",), caption="a {meta.waht}")
    with pytest.raises(DataError, match="no record has the fields of the caption"):
        list(open_source(wrong, tmp_path).samples())


@pytest.mark.parametrize(
    "wrong", [{"use": "video"}, {"when": ["a"]}, {"choices": "yes"}, {"modality": None}]
)
def test_a_task_declared_in_another_form_is_refused(tmp_path, wrong):
    folder = write_set(tmp_path / "x", record(), tasks=({**ASK, **wrong},))
    with pytest.raises(DataError, match=f"{next(iter(wrong))} is "):
        samples(folder)
