"""Every question at tiny sizes, from the command line to the file."""

import json

import pytest

from benchmarks.__main__ import QUESTIONS, main

FAST = ("--rounds", "1", "--burst-s", "0", "--heap-gb", "0", "--tuned-only")
LAYER = ("--tokens", "16", "--width", "16", "--inner", "16", "--experts", "3")
TINY = {
    "layer": (*LAYER, *FAST),
    "lora": (*LAYER, "--rank", "2", "--dtype", "bfloat16", *FAST),
    "decode": (
        *("--batch", "2", "--dtype", "float32", "--width", "16", "--inner", "16"),
        *("--layers", "2", "--heads", "2", "--prompt", "4", "--new", "3", *FAST),
    ),
    "step": (
        *("--what", "tune", "--positions", "16", "--width", "16", "--inner", "16"),
        *("--layers", "2", "--heads", "2", "--vocabulary", "40", "--rank", "2", *FAST),
    ),
}


def test_every_question_is_tried():
    own = {"size", "memory"}  # they have no tiny size; see test_size, test_memory
    assert set(TINY) | own == set(QUESTIONS)


@pytest.mark.parametrize("question", TINY)
def test_a_question_prints_a_table_and_keeps_its_answer(question, tmp_path, capsys):
    file = tmp_path / "machine.json"
    assert main([question, *TINY[question], "--json", str(file)]) == 0
    said = capsys.readouterr().out
    assert "what" in said
    assert "ratio" in said
    answer = json.loads(file.read_text())[question]
    assert {"machine", "clock", "load_average", "routes", "rounds", "cases"} <= set(answer)
    assert answer["rounds"] == 1
    (case,) = answer["cases"]
    assert all(len(row["ratios"]) == 1 for row in case["rows"])


def test_a_question_that_nobody_knows_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "speed" in capsys.readouterr().err
