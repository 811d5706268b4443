"""Every question at tiny sizes, from the command line to the file."""

import json
import os
import subprocess
import sys
from unittest import mock

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import layer, lora, machine
from benchmarks.__main__ import QUESTIONS, main
from benchmarks.answers import at_least
from benchmarks.peers import Sizes
from benchmarks.rounds import Contender

FAST = ("--rounds", "1", "--burst-s", "0", "--heap-gb", "0", "--tuned-only", "--device", "cpu")
LAYER = ("--tokens", "16", "--width", "16", "--inner", "16", "--experts", "3")
STEP = (
    *("--positions", "16", "--width", "16", "--inner", "16", "--layers", "2"),
    *("--heads", "2", "--vocabulary", "40", "--rank", "2"),
)
TINY = {
    "layer": LAYER,
    "lora": (*LAYER, "--rank", "2", "--dtype", "bfloat16"),
    "decode": (
        *("--batch", "2", "--dtype", "float32", "--width", "16", "--inner", "16"),
        *("--layers", "2", "--heads", "2", "--prompt", "4", "--new", "3"),
    ),
    "step": ("--what", "tune", *STEP),
    "watch": ("--batch", "2", *STEP),
    "features": ("--small", "2", "--large", "1", "--stored", "2", "--listed", "3"),
}


@pytest.fixture(autouse=True)
def _environment():
    """Take back what a command tells its libraries."""
    with mock.patch.dict(os.environ):
        yield


LONG = ("features", "watch")


def asked(question, *more):
    return [question, *TINY[question], *FAST, *more]


def test_every_question_is_tried():
    # Some have tests of their own; large needs a GPU.
    apart = {"size", "memory", "large", "idle", "layouts", "repro", "kills"}
    apart |= {"registry", "points", "questions", "dashboard"}
    assert set(TINY) | apart == set(QUESTIONS)


def test_the_paper_s_size_is_refused_on_a_cpu(capsys):
    assert main(["large", "--device", "cpu"]) != 0
    assert "sees no accelerator" in capsys.readouterr().err


@pytest.mark.parametrize(
    "question",
    [pytest.param(name, marks=[pytest.mark.operate] if name in LONG else []) for name in TINY],
)
def test_a_question_prints_its_tables_and_keeps_its_answer(question, tmp_path, capsys):
    file = tmp_path / "machine.json"
    assert main(asked(question, "--json", str(file))) == 0
    said = capsys.readouterr().out
    answer = json.loads(file.read_text())[question]
    assert {"machine", "load_average", "routes", "rounds", "missed", "cases"} <= set(answer)
    assert answer["rounds"] == 1
    assert answer["missed"] == []
    for case in answer["cases"]:
        assert case["title"] in said
        assert case["clock"] in said
        assert all(len(row["ratios"]) == 1 for row in case["rows"])
        assert all(line["what"] in said for line in (*case["rows"], *case["numbers"]))


def test_kept_answers_have_the_machines_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    assert main(asked("layer", "--keep")) == 0
    (file,) = tmp_path.iterdir()
    assert file.stem == machine.name()
    assert capsys.readouterr().out.startswith(f"{machine.name()}, ")


def bars(monkeypatch, **limits):
    """Hold the tiny layer to these: contender -> what its time over ours is at least."""
    sizes = Sizes(16, 16, 16, 3, 2, "float32")
    wanted = {(Contender(who), Contender("ours")): at_least(n) for who, n in limits.items()}
    monkeypatch.setitem(layer.QUESTIONS, "cpu", (layer.Question(sizes, wanted),))


def test_a_missed_bar_ends_a_command_with_an_error_and_says_where_and_by_how_much(
    monkeypatch, capsys
):
    bars(monkeypatch, loop=1000.0, deepspeed=0.0)
    assert main(asked("layer")) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "missed" in line]
    assert said.startswith(f"missed on {machine.name()}: T=16 H=16 I=16 E=3 top-2 float32: ")
    assert "loop, tuned over ours, tuned: " in said
    assert said.endswith("at least 1000 is asked for")


def test_a_bar_whose_contender_is_not_measured_is_named(monkeypatch, capsys):
    bars(monkeypatch, nobody=0.0)
    assert main(asked("layer")) == 1
    assert "nobody, tuned (there is no nobody, tuned): not measured" in capsys.readouterr().err


def test_a_peer_that_is_not_installed_is_shown_as_such(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    assert main(asked("layer")) == 0
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if "deepspeed, tuned" in line]
    assert "deepspeed is not installed" in line
    bars(monkeypatch, deepspeed=0.0)
    assert main(asked("layer")) == 1


HEAVY = (
    *("deepspeed", "prefect", "dvc", "sqlalchemy", "pyarrow", "pandas", "pydantic", "scipy"),
    *("great_expectations", "minio", "PIL", "soundfile", "soxr", "av"),
)


@pytest.mark.parametrize(
    "question",
    [
        "layer",
        *(pytest.param(question, marks=pytest.mark.operate) for question in ("lora", "decode")),
    ],
)
def test_what_a_bare_machine_with_an_accelerator_lacks_is_not_needed(question):
    """Blocked imports need a process of their own."""
    code = f"import sys; sys.modules |= dict.fromkeys({HEAVY!r}); from benchmarks.__main__ import "
    code += f"main; sys.exit(main({asked(question)!r}))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ("deepspeed is not installed" in ended.stdout) == (question == "layer")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it has one")
def test_an_accelerator_that_is_not_there_is_refused(capsys):
    assert main(["layer", "--device", "cuda"]) == 2
    assert "torch sees only cpu" in capsys.readouterr().err


def test_every_device_has_questions_and_every_bar_a_contender():
    for lay in (layer, lora):
        sizes = Sizes(8, 8, 8, 2, 1, "float32")
        more = {"rank": 2} if lay is lora else {}
        names = lay.runs(sizes, seed=0, device="cpu", with_ours=True, **more)
        for questions in lay.QUESTIONS.values():
            for question in questions:
                pairs = [*question.bars, *question.memory]
                assert pairs
                assert {one.name for pair in pairs for one in pair} <= set(names)


def test_a_question_that_nobody_knows_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "speed" in capsys.readouterr().err


@pytest.mark.operate
def test_lineage_among_a_million_artifacts_keeps_its_bar(tmp_path):
    small = ["--ledgers", "10", "--each", "1000", "--asked", "50"]
    assert main(["questions", *small, "--nodes", "1000000", "--json", str(tmp_path / "a")]) == 0
