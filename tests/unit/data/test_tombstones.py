"""A sample that went leaves a hole, whether an operator took it out or the contract refused it."""

import json
import shutil
from types import SimpleNamespace

import pytest
import yaml
from contract_tables import run, workspace
from workspace import PROJECT, ingested, rows_of, small_playground

from uni_moe.artifacts import read_card
from uni_moe.config import parse_params
from uni_moe.data.captions import conversations
from uni_moe.data.contract import validate
from uni_moe.data.corpus import open_corpus, prepare
from uni_moe.data.manifest import sample_of
from uni_moe.data.order import Order
from uni_moe.data.steps import Steps
from uni_moe.data.tombstones import (
    FILE,
    Tombstone,
    by_modality,
    read_tombstones,
    tombstone_of,
    write_tombstones,
)
from uni_moe.errors import DataError
from uni_moe.extent import Extent
from uni_moe.records import MODALITIES
from uni_moe.removing import take_out
from uni_moe.train.conversations import read_conversations, read_holes

PHASE = SimpleNamespace(blend={"image": 1.0, "speech": 0.5}, tasks=("answer", "caption"))
EXTENTS = {"answer": Extent(5), "caption": Extent(9, ((3, 2), (6, 1)))}
PROMPTS = {"image": "Describe it.", "video": "Describe it.", "speech": "Transcribe it."}


def params_of(*sources):
    data = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    return parse_params(data | {"raw": ".", "sources": list(sources)})


def corpora(layout):
    contract = layout.root / "data_contracts"
    if not contract.exists():
        shutil.copytree(PROJECT / "data_contracts", contract)
        shutil.copy(PROJECT / "params.yaml", layout.params)
    run("validate", layout, validate)
    for name in MODALITIES:
        run(f"prepare@{name}", layout, prepare)
    return {name: open_corpus(layout.corpus(name)) for name in MODALITIES}


def drawn(corpora, encoders=("image", "speech"), steps=150):
    """Return (step, slot) -> what a phase over these corpora draws there."""
    train = read_conversations(corpora, "train", PHASE, PROMPTS)
    order = Order(
        {name: list(rows) for name, rows in train.items()},
        PHASE.blend,
        7,
        phase="tune",
        holes=read_holes(corpora, "train", PHASE, encoders),
    )
    cut = Steps(order, len, batch_size=5)
    return {
        (step, draw.slot): (draw.modality, draw.key)
        for step in range(steps)
        for draw in cut.draws(step)
    }


def test_a_sample_taken_out_leaves_every_other_draw_in_its_step_and_slot(tmp_path):
    counts = {"text": 3, "image": 20, "video": 3, "audio": 3, "speech": 20}
    source = small_playground(train=counts)
    before_layout = ingested(tmp_path, source)
    before = drawn(corpora(before_layout))
    rows = [row for row in rows_of(before_layout) if row["split"] == "train"]
    gone = {[r["key"] for r in rows if r["modality"] == name][5] for name in ("image", "speech")}
    new = take_out(before_layout, params_of(source), gone)
    assert {one.key for one in new} == gone
    after_layout = ingested(tmp_path, source)
    assert not gone & {row["key"] for row in rows_of(after_layout)}
    assert read_card(after_layout.samples("image")).results["taken_out"] == 1
    after = drawn(corpora(after_layout))

    def stays(draw):
        return draw[1].partition("#")[0] not in gone

    assert after == {place: draw for place, draw in before.items() if stays(draw)}
    assert len(after) < len(before)
    for name in ("image", "speech"):
        folder = after_layout.corpus(name)
        held = b"".join(p.read_bytes() for p in folder.iterdir() if p.name != FILE)
        assert not any(key.encode() in held for key in gone)


def test_a_sample_that_is_refused_later_leaves_every_other_draw_in_place(tmp_path):
    def refuse(modality, rows):
        if modality == "image":
            rows[7] = rows[7] | {"decode_ok": False}
        return rows

    whole, less = (
        drawn(corpora(workspace(tmp_path / name, edit=edit, count=12)))
        for name, edit in (("whole", None), ("less", refuse))
    )
    key = "made/image-007"
    assert key in {draw[1] for draw in whole.values()}
    assert less == {p: draw for p, draw in whole.items() if draw[1].partition("#")[0] != key}


def test_a_tombstone_has_the_holes_of_its_samples_conversations(tmp_path):
    layout = ingested(tmp_path, small_playground())
    for row in rows_of(layout):
        sample, left = sample_of(row), tombstone_of(row, {}, refused=False)
        assert (left.modality, left.split) == (sample.modality, sample.split)
        for tasks in (("answer",), ("caption",), ("caption", "answer")):
            found = conversations([sample], tasks, {**PROMPTS, "audio": "Describe it."})
            assert {hole.key: set(hole.kinds) for hole in left.holes(tasks)} == {
                one.key: {ref.kind for ref in one.media} for one in found
            }


def test_a_tombstone_holds_nothing_of_the_content(tmp_path):
    layout = ingested(tmp_path, small_playground())
    row = next(row for row in rows_of(layout) if row["modality"] == "speech")
    told = json.dumps(tombstone_of(row, {"answer": Extent(30, ((4, 2),))}, refused=True).to_json())
    assert set(json.loads(told)) <= {"key", "split", "kinds", "caption", "extents", "refused"}
    assert row["transcript"] not in told.replace(row["key"], "")


def test_tombstones_come_back_as_they_were(tmp_path):
    written = [
        Tombstone("b/2", "test", ("speech",), "speech", EXTENTS, refused=True),
        Tombstone("a/1\u2028\x85\n two", None),
    ]
    write_tombstones(tmp_path / FILE, written)
    assert read_tombstones(tmp_path / FILE) == written[::-1]
    write_tombstones(tmp_path / "none", [])
    assert not (tmp_path / "none").exists()
    assert read_tombstones(tmp_path / "none") == []
    assert {m for m, found in by_modality(written).items() if found} == {"text", "speech"}


def test_wrong_lines_of_tombstones_are_told_at_once(tmp_path):
    lines = [
        '{"key": "a/1", "split": "train", "kinds": []}',
        "{",
        '{"key": "a/2", "split": "trian", "kinds": []}',
        '{"key": "a/3", "split": "train", "kinds": ["smell"]}',
        '{"key": "a/4", "kinds": []}',
        '{"key": "a/1", "split": "train", "kinds": []}',
        '{"key": "a/5", "split": "train", "kinds": [], "voice": 1}',
        "7",
        '{"key": "a/6", "split": "train", "kinds": [], "extents": [3]}',
    ]
    (tmp_path / FILE).write_text("\n".join(lines))
    with pytest.raises(DataError, match="uni-moe remove") as error:
        read_tombstones(tmp_path / FILE)
    for number in range(2, 10):
        assert f"line {number}:" in str(error.value)
    assert "line 1:" not in str(error.value)


def test_a_source_that_is_gone_has_no_tombstones(tmp_path):
    write_tombstones(tmp_path / FILE, [Tombstone("elsewhere/1", "train", ("image",))])
    layout = ingested(tmp_path, small_playground())
    assert read_card(layout.samples("image")).results["taken_out"] == 0
    assert not (layout.samples("image") / FILE).exists()


def test_a_sample_taken_out_twice_has_one_tombstone_and_an_unknown_one_is_told(tmp_path):
    source = small_playground()
    layout = ingested(tmp_path, source)
    key = rows_of(layout)[0]["key"]
    assert len(take_out(layout, params_of(source), [key])) == 1
    assert take_out(layout, params_of(source), [key]) == []
    ingested(tmp_path, source)
    assert take_out(layout, params_of(source), [key]) == []
    assert [one.key for one in read_tombstones(tmp_path / FILE)] == [key]
    with pytest.raises(DataError, match="playground/nothing"):
        take_out(layout, params_of(source), [key, "playground/nothing"])


def test_all_of_one_person_are_taken_out(tmp_path):
    def name(_, rows):
        return [row | {"subject": "ann" if at in (2, 4) else "bob"} for at, row in enumerate(rows)]

    layout, params = workspace(tmp_path, edit=name), params_of(small_playground())
    keys = {one.key for one in take_out(layout, params, [], ["ann"])}
    assert keys == {f"made/{name}-{at:03d}" for name in MODALITIES for at in (2, 4)}
    with pytest.raises(DataError, match="nobody"):
        take_out(layout, params, [], ["ann", "nobody"])
