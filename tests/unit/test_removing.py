"""Samples taken out: nobody else moves, whatever cuts a step; what is written, printed, refused."""

import json
from dataclasses import replace

import pytest
import yaml

from tests.unit.data.workspace import PROJECT, ingested, rows_of, small_playground
from tests.unit.evaluate.tiny_model import network
from uni_moe.cli import main
from uni_moe.config import Packing, load_params, parse_params
from uni_moe.data.captions import conversations
from uni_moe.data.manifest import read_manifest, sample_of, write_manifest
from uni_moe.data.tombstones import FILE, read_tombstones
from uni_moe.errors import DataError
from uni_moe.extent import Extent
from uni_moe.lengths import Lengths
from uni_moe.removing import take_out
from uni_moe.train.drawing import steps_of

PROMPTS = {"image": "Describe it.", "speech": "Transcribe it."}
TASKS = ("answer", "caption")
BLEND = {"text": 1.0, "image": 1.0, "speech": 1.0}
CONTEXT = 4096


@pytest.fixture
def layout(tmp_path):
    made = ingested(tmp_path, small_playground())
    data = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    data |= {"raw": ".", "sources": [small_playground()]}
    data["prepare"]["caption_prompts"] = PROMPTS
    made.params.write_text(yaml.safe_dump(data), encoding="utf-8")
    return made


@pytest.fixture
def processor(layout):
    """The processor of a model that was trained in the workspace."""
    found = network()[1]
    found.save_pretrained(layout.model)
    return found


def pools(layout):
    """Return modality -> key -> training conversation."""
    rows = [row for row in rows_of(layout) if row["split"] == "train"]
    return {
        name: {
            one.key: one
            for row in rows
            if row["modality"] == name
            for one in conversations([sample_of(row)], TASKS, PROMPTS)
        }
        for name in BLEND
    }


def drawn(train, holes, lengths, count=40):
    phase = replace(
        parse_params(yaml.safe_load((PROJECT / "params.yaml").read_text())).tune,
        blend=BLEND,
        tasks=TASKS,
        batch_size=None,
        batch_positions=150,
    )
    steps = steps_of(phase, name="tune", seed=3, train=train, holes=holes, lengths=lengths)
    return [(steps.bounds(step), steps.draws(step)) for step in range(count)]


def holes_of(tombstones):
    return {
        name: {
            hole.key: hole.extent
            for one in tombstones
            if one.modality == name
            for hole in one.holes(TASKS)
        }
        for name in BLEND
    }


def test_a_tombstone_keeps_what_a_conversation_took_and_where_its_media_stood(layout, processor):
    rows = {row["modality"]: row for row in rows_of(layout)}
    new = take_out(layout, load_params(layout.params), [rows["text"]["key"], rows["image"]["key"]])
    found = {one.modality: one.extents["answer"] for one in new}

    def tokens(text):  # the template is USER: … ASSISTANT: …, between a start and an end
        return len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def words(modality):
        user, answer = (turn.text for turn in sample_of(rows[modality]).turns)
        return f"{user} ASSISTANT: {answer}"

    assert found["text"] == Extent(1 + tokens("USER: " + words("text")) + 1)
    first = 1 + tokens("USER: ")
    whole = first + 4 + tokens(words("image")) + 1  # its picture is 2 x 2 patches
    assert found["image"] == Extent(whole, ((first, 4),))


@pytest.mark.parametrize(
    "packing",
    [None, Packing(4096, 1, "refuse"), Packing(60, 1, "truncate"), Packing(12, 2, "truncate")],
    ids=["unpacked", "packed", "cut", "cut in a picture"],
)
def test_a_sample_taken_out_moves_no_draw_of_steps_cut_by_positions(layout, processor, packing):
    whole = pools(layout)
    gone = {key for rows in whole.values() for key in list(rows)[1:3] if "#" not in key}
    new = take_out(layout, load_params(layout.params), gone)
    left = {
        name: {key: one for key, one in rows.items() if key.partition("#")[0] not in gone}
        for name, rows in whole.items()
    }
    lengths = Lengths(processor, CONTEXT, packing)
    before, after = drawn(whole, {}, lengths), drawn(left, holes_of(new), lengths)
    assert after == [
        (bounds, [one for one in draws if one.key.partition("#")[0] not in gone])
        for bounds, draws in before
    ]
    assert before != after


def test_steps_cut_by_positions_are_refused_where_a_length_is_not_known(layout):
    whole = pools(layout)
    gone = next(iter(whole["image"]))
    new = take_out(layout, load_params(layout.params), [gone])  # there is no tokenizer yet
    assert [hole.extent for hole in new[0].holes(TASKS)] == [None, None]
    left = {name: {k: v for k, v in rows.items() if k != gone} for name, rows in whole.items()}
    with pytest.raises(DataError, match=gone) as told:
        drawn(left, holes_of(new), Lengths(network()[1], CONTEXT))
    assert "batch_size" in told.value.remedy


def changed(layout, modality, **values):
    """Change the first training sample of a manifest and return its key."""
    rows = read_manifest(layout.samples(modality))
    place = next(at for at, row in enumerate(rows) if row["split"] == "train")
    rows[place] |= values
    write_manifest(layout.samples(modality), rows)
    return rows[place]["key"]


def test_a_sound_that_no_model_reads_and_a_broken_record_can_be_taken_out(layout, processor):
    rows = read_manifest(layout.samples("audio"))
    media = json.loads(next(row for row in rows if row["split"] == "train")["media"])
    media[0]["duration_s"] = 20.5 * processor.audio_window_s
    keys = [
        changed(layout, "audio", media=json.dumps(media)),
        changed(layout, "text", problem_codes="broken_json"),
    ]
    new = take_out(layout, load_params(layout.params), keys)
    assert {one.key: one.extents["answer"] for one in new} == dict.fromkeys(keys, Extent(0))


def test_a_sample_of_an_unknown_split_is_taken_out_and_read_again(layout):
    key = changed(layout, "image", split="holdout")
    take_out(layout, load_params(layout.params), [key])
    (left,) = read_tombstones(layout.root / FILE)
    assert (left.key, left.split) == (key, None)
    ingested(layout.root, small_playground())
    assert key not in {row["key"] for row in rows_of(layout)}


def test_the_command_takes_samples_out_and_says_what_is_left_to_do(layout, capsys):
    keys = [row["key"] for row in rows_of(layout)[:2]]
    assert main(["--workspace", str(layout.root), "remove", *keys]) == 0
    said = capsys.readouterr().out
    assert all(key in said for key in keys)
    assert "2 sample(s) taken out" in said
    assert {one.key for one in read_tombstones(layout.root / FILE)} == set(keys)


def test_the_command_refuses_what_it_does_not_know(layout, capsys):
    assert main(["--workspace", str(layout.root), "remove", "playground/nobody"]) == 3
    assert main(["--workspace", str(layout.root), "remove"]) == 2
    assert "neither a key nor a subject" in capsys.readouterr().err
    assert not (layout.root / FILE).exists()
