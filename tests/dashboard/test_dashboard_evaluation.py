"""Evaluation: versions compared on the same items, the items themselves, hostile content."""

import json
import shutil
from dataclasses import replace

import pytest

from dashboard import exams
from dashboard.items_shown import cut
from dashboard.sources import evaluation
from dashboard.sources.workspace import WORKSPACE
from tests.dashboard.judged_workspace import HOSTILE, version
from tests.dashboard.pages import opened, said
from uni_moe.artifacts import Layout
from uni_moe.records import Score


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    root = tmp_path_factory.mktemp("two")
    version(root, "one", 10)
    version(root, "two", 2, said="x" * 1_000_000, swapped=0.2)
    return root


def test_a_worse_version_says_where_and_shows_the_items(two, monkeypatch):
    asked = {"version": 2, "against": 1, "ended": "only version 1 right"}
    app = opened(monkeypatch, two, "evaluation", **asked)
    assert not app.exception
    told = said(app)
    assert r"Version 2 is shown to be worse at\: image \(\-80\.0 points\)" in told
    assert "8 items, 5 on a page" in told
    assert ":material/cancel: wrong" in told
    assert ":material/check_circle: right" in told
    assert r"Not shown that the medium is used\: image \(version 2\)" in told


def test_a_page_of_items_holds_their_pictures(two, monkeypatch):
    app = opened(monkeypatch, two, "evaluation", version=1)
    assert r"picture of 32 x 32 pixels" in said(app)
    assert not app.exception


def test_a_sample_that_is_gone_is_told(two, monkeypatch):
    app = opened(monkeypatch, two, "evaluation", version=1, sheet=2)
    assert "The sample is not in the corpus here" in said(app)


def test_hostile_texts_are_shown_as_they_are_and_not_without_end(two, monkeypatch):
    app = opened(monkeypatch, two, "evaluation", version=2, against=1)
    assert all("<script>" not in str(one.value) for one in (*app.markdown, *app.caption))
    assert any("<script>" in str(one.value) for one in app.text)
    longest = max(len(str(one.value)) for one in (*app.code, *app.text, *app.caption))
    assert longest < 3_000


def test_an_outcome_without_items_says_so(two, monkeypatch):
    app = opened(monkeypatch, two, "evaluation", version=1, against=2, ended="both wrong")
    assert "No item ended so" in said(app)


def test_by_task_groups_are_compared(two, monkeypatch):
    app = opened(monkeypatch, two, "evaluation", version=2, scope="task")
    assert r"mine/image\:colour" in said(app).replace("\\/", "/")


def test_an_unknown_version_is_told(two, monkeypatch):
    app = opened(monkeypatch, two, "evaluation", version="../../etc")
    assert not app.exception
    assert "There is no version" in said(app)


def test_a_report_that_is_gone_says_what_to_do(tmp_path, monkeypatch):
    layout, known = version(tmp_path, "one", 8)
    shutil.rmtree(next((layout.store / known.model).glob("report-*/")))
    app = opened(monkeypatch, tmp_path, "evaluation")
    assert not app.exception
    assert "answers of version 1 are not here" in said(app)


def test_a_corpus_that_is_gone_leaves_questions_and_answers(tmp_path, monkeypatch):
    layout, _ = version(tmp_path, "one", 8)
    shutil.rmtree(layout.corpus("image"))
    app = opened(monkeypatch, tmp_path, "evaluation")
    assert not app.exception
    assert "The sample is not in the corpus here" in said(app)
    assert "What is it?" in said(app)


def test_a_shard_that_is_gone_is_told_beside_the_item(tmp_path, monkeypatch):
    layout, _ = version(tmp_path, "one", 8)
    next(layout.corpus("image").glob("*.tar")).unlink()
    app = opened(monkeypatch, tmp_path, "evaluation")
    assert not app.exception
    assert "dvc checkout" in said(app)


def item(n, score, **told):
    about = {"modality": "image", "task": "mine/a", "group": None, "at": 0}
    return exams.Item(f"{n}", f"k/{n}", score=score, **{**about, **told})


def test_only_items_that_both_have_are_paired():
    pairs = exams.pairs_of([item(1, 1.0), item(2, 0.0)], [item(2, 1.0), item(3, 1.0)])
    assert [(one.id, two.id) for one, two in pairs] == [("2", "2")]


def test_a_score_that_is_no_number_counts_for_nothing():
    pairs = [(item(1, float("nan")), item(1, 1.0)), (item(2, 0.0), item(2, 1.0))]
    (found,) = exams.differences(pairs, "modality", 0.95, 0.8)
    assert (found.paired.n, found.paired.difference) == (1, -1.0)


def test_the_worst_comes_first():
    pairs = [
        *((item(n, 1.0), item(n, 0.0)) for n in range(30)),
        *((item(n, 0.0, task="mine/b"), item(n, 1.0, task="mine/b")) for n in range(30, 60)),
    ]
    found = exams.differences(pairs, "task", 0.95, 0.8)
    assert [one.name for one in found] == ["mine/b", "mine/a"]
    assert [exams.verdict(one.paired) for one in found] == [
        "shown to be worse",
        "shown to be better",
    ]


def test_a_sample_is_found_by_halving_wherever_it_stands(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    file = Layout(tmp_path).corpus("image") / "test.jsonl"
    file.parent.mkdir(parents=True)
    keys = [f"k/{n:03}" for n in range(0, 100, 2)]
    lines = [
        json.dumps({"key": key, "pad": "x" * (number * 7 % 50)}) for number, key in enumerate(keys)
    ]
    file.write_text("\n".join(lines) + "\n")
    for number in range(100):
        found = evaluation._searched(file, f"k/{number:03}")
        assert (found is not None) == (number % 2 == 0)
        assert found is None or found["key"] == f"k/{number:03}"
    file.write_text("")
    assert evaluation._searched(file, "k/000") is None


def test_long_and_empty_texts_say_so():
    assert cut("x" * 5000).endswith("(3,000 letters more)")
    assert cut(" ") == "(nothing)"
    assert cut(HOSTILE) == HOSTILE


def test_answers_that_cannot_be_read_are_told_with_the_reason(tmp_path, monkeypatch):
    layout, known = version(tmp_path, "one", 8)
    (file,) = (layout.store / known.model).glob("report-*/answers.jsonl")
    lines = file.read_text().splitlines()
    file.write_text("\n".join(['{"id": "torn', *lines[1:-1], '{"id": "1", "key": "k"}']) + "\n")
    app = opened(monkeypatch, tmp_path, "evaluation")
    assert not app.exception
    assert "2 lines of answers cannot be read" in said(app)
    told = next(one.value for one in app.dataframe if "why" in one.value)
    assert list(told["line"]) == [1, 10]
    assert "Invalid control character" in told["why"][0]
    assert told["why"][1] == "it lacks 'modality'"
    assert "8 items, 5 on a page" in said(app)


def test_better_is_what_the_gate_would_call_so():
    """A gain whose own interval excludes zero, and whose interval among several claims does not."""
    gain = [(item(n, 1.0), item(n, 0.0)) for n in range(9)]
    same = [(item(n, 1.0), item(n, 1.0)) for n in range(9, 30)]
    others = [
        (item(n, 1.0, modality=name), item(n, 1.0, modality=name))
        for place, name in enumerate(("audio", "video", "speech", "text"))
        for n in range(100 * (place + 1), 100 * (place + 1) + 30)
    ]
    alone = exams.differences([*gain[:5], *same], "modality", 0.95, 0.8)
    among = exams.differences([*gain[:5], *same, *others], "modality", 0.95, 0.8)
    (one,) = alone
    (two,) = (found for found in among if found.name == "image")
    assert one.paired.low == two.paired.low > 0
    assert exams.verdict(one.paired) == "shown to be better"
    assert two.paired.surely < 0
    assert exams.verdict(two.paired) == "no difference shown"


def test_a_mean_of_scores_of_which_one_is_no_number_is_not_known():
    good = Score(10, 0.5, 0.4, 0.6, 0.2, 0.2, 0.2, None)
    assert exams.mean_of({"image": good, "text": replace(good, score=0.7)}) == pytest.approx(0.6)
    assert exams.bias_of({"image": good, "text": replace(good, score=0.7)}) == pytest.approx(0.2)
    broken = {"image": good, "text": replace(good, score=float("nan"))}
    assert exams.mean_of(broken) is exams.bias_of(broken) is exams.mean_of({}) is None
