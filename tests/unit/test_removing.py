"""Samples taken out by the command: what is written, printed and refused."""

import pytest
import yaml

from tests.unit.data.workspace import PROJECT, ingested, rows_of, small_playground
from tests.unit.evaluate.tiny_model import network
from uni_moe.cli import main
from uni_moe.config import parse_params
from uni_moe.data.captions import conversations
from uni_moe.data.manifest import sample_of
from uni_moe.data.tombstones import FILE, read_tombstones
from uni_moe.lengths import encoded_of
from uni_moe.removing import Wish, take_out

PROMPTS = {"image": "Describe it.", "speech": "Transcribe it."}


@pytest.fixture
def layout(tmp_path):
    made = ingested(tmp_path, small_playground())
    data = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    data |= {"raw": ".", "sources": [small_playground()]}
    data["prepare"]["caption_prompts"] = PROMPTS
    made.params.write_text(yaml.safe_dump(data), encoding="utf-8")
    return made


def test_a_tombstone_keeps_the_length_that_packing_knew(layout):
    processor = network()[1]
    processor.save_pretrained(layout.model)
    params = parse_params(yaml.safe_load(layout.params.read_text()))
    chosen = [
        next(row for row in rows_of(layout) if row["modality"] == name)
        for name in ("text", "image", "speech")
    ]
    for row, left in zip(
        chosen,
        take_out(layout, params, Wish([r["key"] for r in chosen], "ada", "why")),
        strict=True,
    ):
        for seat in left.seats(("answer", "caption")):
            by_hand = {
                one.key: len(encoded_of(processor, one)[0].input_ids)
                for one in conversations([sample_of(row)], ("answer", "caption"), PROMPTS)
            }
            assert seat.positions == by_hand[seat.key] > 0


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
