"""Asking models: the worker's keeper, what people upload, and what the page says."""

import io
import json
import shutil
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

from dashboard.answering import MOST_WAITING, Keeper, Question, Upload
from dashboard.fitting import Room, free_bytes, room
from dashboard.sources.answers import VARIABLE
from dashboard.visiting import of_prompt, of_tokens, read, visible
from tests.dashboard.pages import opened, said
from tests.unit.registry.workspace import RULES, candidate
from uni_moe.artifacts import Layout
from uni_moe.errors import StageError
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register
from uni_moe.workspace import recipe_file

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120
ECHO = """
import json, sys, os, time
for line in sys.stdin:
    asked = json.loads(line)
    if asked["question"] == "die":
        print("out of everything", file=sys.stderr, flush=True)
        os._exit(3)
    if asked["question"] in ("no JSON", "[]", "{}"):
        print(asked["question"], flush=True)
    if asked["question"] == "odd":
        print(json.dumps({"id": asked["id"], "error": {}}), flush=True)
    if asked["question"] == "sleep":
        time.sleep(60)
    files = [[one["kind"], one["name"], open(one["path"]).read(), oct(os.stat(
        os.path.dirname(one["path"])).st_mode)[-3:], one["path"]] for one in asked["files"]]
    print(json.dumps({"id": asked["id"], "doing": "thinking"}), flush=True)
    print(json.dumps({"id": asked["id"], "answer": {"text": asked["question"], "files": files,
                                                    "pid": os.getpid()}}), flush=True)
"""


@pytest.fixture
def echo():
    """A keeper whose worker speaks as the real one does, and gives back what it is given."""
    kept = Keeper([sys.executable, "-c", ECHO], limit_s=2)
    yield kept
    kept.end()


def ended(job):
    deadline = time.monotonic() + PATIENCE_S
    while not job.over:
        job.seen()
        assert time.monotonic() < deadline, job.doing
        time.sleep(0.02)
    return job


def ask(keeper, text, *uploads, model="m"):
    return ended(keeper.submit(Question(text, {"one": Path(model)}, uploads)))


def test_an_upload_lies_in_a_private_folder_under_a_name_of_ours_and_is_gone_after(echo):
    job = ask(echo, "what?", Upload("image", "../../x.png", b"bytes"))
    ((kind, name, text, mode, path),) = job.answers["one"]["files"]
    assert (kind, name, text, mode) == ("image", "../../x.png", "bytes", "700")
    assert "x.png" not in path
    assert not Path(path).parent.exists()


def test_a_worker_that_died_is_told_with_its_last_words_and_the_next_question_finds_another(echo):
    before = ask(echo, "first").answers["one"]["pid"]
    dead = ask(echo, "die")
    assert isinstance(dead.error, StageError)
    assert "ended by code 3" in dead.error.what
    assert "out of everything" in dead.error.cause
    assert ask(echo, "second").answers["one"]["pid"] != before


def test_an_answer_that_takes_too_long_is_given_up(echo):
    late = ask(echo, "sleep")
    assert "no answer within 2.0 s" in late.error.what
    assert ask(echo, "second").answers["one"]["text"] == "second"


def test_questions_take_turns_and_a_full_queue_says_so(echo):
    jobs = [echo.submit(Question("sleep", {"one": Path("m")})) for _ in range(MOST_WAITING)]
    assert [echo.ahead(job) for job in jobs] == list(range(MOST_WAITING))
    with pytest.raises(StageError, match=f"{MOST_WAITING} questions wait"):
        echo.submit(Question("more", {"one": Path("m")}))
    for job in jobs:
        job.stop()
    assert all("given up" in ended(job).error.what for job in jobs)
    assert ask(echo, "then").answers["one"]["text"] == "then"


@pytest.mark.parametrize("said", ["no JSON", "[]", "{}"])
def test_a_worker_that_says_nonsense_is_told_and_the_next_question_finds_another(echo, said):
    assert "cannot be understood" in ask(echo, said).error.what
    assert ask(echo, "second").answers["one"]["text"] == "second"


def test_a_mistake_of_ours_ends_a_question_and_not_all_asking(echo):
    assert "nobody foresaw" in ask(echo, "odd").error.what
    assert ask(echo, "second").answers["one"]["text"] == "second"


def test_questions_that_were_given_up_take_no_place_and_keep_no_uploads(echo):
    first = echo.submit(Question("sleep", {"one": Path("m")}))
    upload = Upload("image", "x.png", b"bytes")
    jobs = [echo.submit(Question("more", {"one": Path("m")}, [upload])) for _ in range(7)]
    for job in jobs:
        job.stop()
    then = echo.submit(Question("then", {"one": Path("m")}))
    assert all(job.over and job.question is None for job in jobs)
    assert echo.ahead(then) == 1
    first.stop()
    assert ended(then).answers["one"]["text"] == "then"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A workspace whose champion is a tiny network that was never trained."""
    sys.path.insert(0, str(ROOT / "tests" / "unit" / "evaluate"))
    from tiny_model import network

    layout = Layout(tmp_path_factory.mktemp("tiny"))
    shutil.copy(recipe_file("smoke"), layout.params)
    candidate(layout, "a", 0.7)
    version = promote_first(layout)
    model, processor = network()
    model.save_pretrained(version)
    processor.save_pretrained(version)
    return layout.root


def promote_first(layout):
    known = register(layout, reason="a try", who="ada")
    promote_if_better(layout, known, RULES)
    from uni_moe.registry.read import models

    return models(layout)[0].model_folder


def test_the_worker_answers_refuses_bad_files_in_a_sentence_and_ends_with_its_starter(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = [sys.executable, "-m", "uni_moe", "--workspace", str(tiny), "answer-worker"]
    keeper = Keeper(command)
    (model,) = tiny.glob("store/*/model")
    try:
        good = ask(keeper, "which?", Upload("image", "../../x.png", picture()), model=model)
        assert good.error is None
        answer = read(good.answers["one"])
        assert answer.positions["image"] > 0
        assert len(answer.shown) == 1
        for name, data in (
            ("bomb.png", bomb()),
            ("words.png", b"these are words"),
            ("empty.png", b""),
        ):
            bad = ask(keeper, "which?", Upload("image", name, data), model=model)
            assert name in bad.error.what
            assert "uni-moe-ask-" not in str(bad.error), "a person is told their own names"
        marks = ask(keeper, "<image> what?", model=model)
        assert "marks <image>" in marks.error.what
        worker = keeper._worker.process
        assert keeper.pid() == worker.pid, "none of these ended the worker"
        worker.stdin.close()
        assert worker.wait(10) == 0
    finally:
        keeper.end()
    assert not list(tmp_path.iterdir()), "an upload was left behind"


def test_a_person_asks_on_the_page_and_sees_the_answer_and_its_experts(tiny, monkeypatch):
    monkeypatch.setenv(VARIABLE, "on")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    app = opened(monkeypatch, tiny, "ask")
    assert not app.exception
    app.text_area(key="text").set_value("which?")
    app.button[0].click().run()
    deadline = time.monotonic() + PATIENCE_S
    while "job" not in app.session_state or not app.session_state["job"].over:
        assert time.monotonic() < deadline
        time.sleep(0.5)
        app.run()
    app.run()
    assert not app.exception
    assert "Version 1" in said(app)
    assert "The expert that weighs most" in said(app)


@pytest.mark.parametrize(
    "how, words", [("off", "switched off"), ("auto", "GB of memory"), ("on", "Question")]
)
def test_the_page_says_whether_models_answer_here(tiny, monkeypatch, how, words):
    monkeypatch.setenv(VARIABLE, how)
    monkeypatch.setattr("dashboard.fitting.free_bytes", lambda: 10_000_000)
    app = opened(monkeypatch, tiny, "ask")
    assert not app.exception
    assert words in said(app) + "".join(one.label for one in app.text_area)


def test_a_version_that_is_not_there_is_told(tiny, monkeypatch):
    monkeypatch.setenv(VARIABLE, "off")
    app = opened(monkeypatch, tiny, "ask", version="../../etc", against="9")
    assert not app.exception
    assert [one.value for one in app.warning] == [
        "There is no version \\.\\.\\/\\.\\.\\/etc; choose one of the list.",
        "There is no version 9; choose one of the list.",
    ]


def test_what_is_needed_are_the_weights_and_a_process_that_computes(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    assert room([tmp_path, tmp_path]).weights == 1000
    assert not Room(10**9, 10**9).is_enough
    assert Room(10**9, 4 * 10**9).is_enough
    assert Room(10**9, None).is_enough


def test_a_containers_limit_counts_where_it_is_less_than_the_machines(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable: 4000 kB\n")
    assert free_bytes(meminfo, tmp_path) == 4_096_000
    for name, text in {
        "memory.max": "3000000",
        "memory.current": "1000000",
        "memory.stat": "anon 5\ninactive_file 500000\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert free_bytes(meminfo, tmp_path) == 2_500_000
    (tmp_path / "memory.max").write_text("max")
    assert free_bytes(meminfo, tmp_path) == 4_096_000


def test_rows_hold_every_visit_and_cells_the_heaviest():
    told = {
        "text": "a b",
        "shown": [],
        "slots": ["base", "image"],
        "loading_s": 0.0,
        "answering_s": 1.0,
        "visits": {
            "layers": [1, 3],
            "tokens": ["a", "\n<b>"],
            "experts": [[[0, 1], [1, 0]], [[1, 0], [0, 1]]],
            "shares": [[[0.6, 0.4], [0.9, 0.1]], [[0.7, 0.3], [0.5, 0.5]]],
            "prompt": {"text": [[0.25, 0.75], [0.75, 0.25]]},
            "positions": {"text": 4},
        },
    }
    answer = read(json.loads(json.dumps(told)))
    cells, numbers = of_tokens(answer)
    assert [(c["place"], c["layer"], c["name"]) for c in cells] == [
        (1, 1, "0 base"),
        (1, 3, "1 image"),
        (2, 1, "1 image"),
        (2, 3, "0 base"),
    ]
    assert len(numbers) == 8
    means, layers = of_prompt(answer)
    assert [row["share"] for row in means] == [0.5, 0.5]
    assert len(layers) == 4
    assert [visible(token) for token in ("", " a\n", "\u202e")] == ["(end)", "␣a⏎", "�"]


def picture():
    data = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(data, "PNG")
    return data.getvalue()


def bomb():
    """A picture of few bytes that would take gigabytes."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
