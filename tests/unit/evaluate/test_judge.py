"""The judgement with made answerers: what they use and do not use must show."""

from dataclasses import replace

import pytest
from eval_items import item, pictures

from uni_moe.evaluate.judge import by_task, chosen, items_hash, judge, sum_up
from uni_moe.evaluate.report import media_used

COLORS = ("red", "green", "blue", "white")
ANSWERS = COLORS * 10
TRAINING = [item(f"train-{i}", answer=color) for i, color in enumerate(COLORS)]


def looking(items, _):
    """Answer from the picture alone: its bytes name what it shows."""
    return [one.media[0].sha256.split("-")[1] for one in items]


def blind(items, _):
    """Answer without looking."""
    return ["red"] * len(items)


def cheating(items, _):
    """Answer from the item itself, as a model does that found the answer in the text."""
    return [one.turns[-1].text for one in items]


def judged(answer, **changes):
    return judge(pictures(ANSWERS, choices=COLORS, **changes), TRAINING, answer, seed=0)


def test_a_model_that_looks_loses_its_score_with_foreign_media():
    score = sum_up(judged(looking), 0.95)
    assert score.score == 1.0
    assert score.swapped < 0.5
    assert media_used(score) == "yes"


@pytest.mark.parametrize("answer", [blind, cheating])
def test_a_model_that_ignores_its_media_is_shown_as_not_using_them(answer):
    score = sum_up(judged(answer), 0.95)
    assert score.swapped == score.score
    assert media_used(score) == "not shown"


def test_guessers_are_scored_beside_the_model():
    score = sum_up(judged(looking), 0.95)
    assert (score.n, score.chance, score.majority, score.question_only) == (40, 0.25, 0.25, 0.25)


def test_text_has_no_media_to_exchange():
    items = [item(f"{i}", answer=color) for i, color in enumerate(COLORS)]
    asked = []

    def answer(rows, what):
        asked.append(what)
        return blind(rows, what)

    score = sum_up(judge(items, TRAINING, answer, seed=0), 0.95)
    assert score.swapped is None
    assert media_used(score) == "-"
    assert asked == ["own media"]


def test_unparseable_answers_are_counted_and_never_score():
    rows = [one.row() for one in judged(lambda items, _: ["no idea"] * len(items))]
    assert all(row["unparseable"] and row["score"] == 0.0 and not row["correct"] for row in rows)


def test_a_row_tells_everything_about_an_item():
    row = judged(looking, group="color")[3].row()
    assert row == {
        "key": "made/003",
        "id": "id-003",
        "task": "made/what",
        "group": "color",
        "modality": "image",
        "prompt": "What is it?",
        "reference": "white",
        "answer": "white",
        "metric": "exact_match",
        "correct": True,
        "score": 1.0,
        "unparseable": False,
        "swapped_answer": row["swapped_answer"],
        "swapped_score": float(row["swapped_answer"] == "white"),
        "question_only": "blue",
    }


def test_an_exchanged_item_keeps_its_question_and_its_reference():
    seen = {}

    def answer(items, what):
        seen[what] = items
        return blind(items, what)

    judged(answer)
    own, foreign = seen["own media"], seen["media swapped"]
    assert [one.turns for one in own] == [one.turns for one in foreign]
    assert all(a.media != b.media for a, b in zip(own, foreign, strict=True))
    assert len({one.key for one in (*own, *foreign)}) == 80


def test_tasks_are_summed_up_whole_and_by_group():
    rows = judged(looking, group="color") + judged(blind)
    assert {name: len(of) for name, of in by_task(rows).items()} == {
        "made/what": 80,
        "made/what:color": 40,
    }


def test_a_choice_of_items_is_seeded_and_in_order():
    items = pictures(ANSWERS)
    few = chosen(items[::-1], 7, 1)
    assert few == chosen(items, 7, 1)
    assert few == sorted(few, key=lambda one: one.key)
    assert few != chosen(items, 7, 2)
    assert set(few) <= set(chosen(items, 12, 1))
    assert chosen(items, None, 1) == items
    assert chosen(items, 0, 1) == []


def test_a_set_of_items_is_known_by_its_ids_in_any_order():
    items = pictures(ANSWERS)
    assert items_hash(items) == items_hash(items[::-1])
    assert items_hash(items) != items_hash(items[1:])
    other = [replace(items[0], metric="word_error"), *items[1:]]
    assert items_hash(items) != items_hash(other)
