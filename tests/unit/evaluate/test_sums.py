"""How scores are summed up, by hand."""

from statistics import fmean

import pytest
from eval_items import item
from tiny_model import network

from uni_moe.evaluate.baselines import Guess
from uni_moe.evaluate.harness import Examined, knock_outs, summarize
from uni_moe.evaluate.judge import Judged, by_task, items_hash, judge, sum_up
from uni_moe.evaluate.metrics import Scored, interval
from uni_moe.evaluate.swap import derangement


def judged(name, score, *, chance=0.5, majority="no", question_only="no", swapped=None, **changes):
    """Return an item whose reference is yes, with what was said of it."""
    return Judged(
        item(name, answer="yes", **changes),
        "?",
        Scored(score),
        Guess(chance, majority, question_only),
        None if swapped is None else "?",
        None if swapped is None else Scored(swapped),
    )


ROWS = [
    judged("a", 1.0, chance=0.5, majority="yes", question_only="yes", swapped=1.0),
    judged("b", 0.0, chance=0.25, majority="no", question_only="Yes.", swapped=0.0),
    judged("c", 1.0, chance=0.25, majority="no", question_only="yes", swapped=0.0),
    judged("d", 1.0, chance=0.2, majority="no", question_only="no", swapped=None),
]


def test_a_score_stands_beside_the_means_of_what_guessing_reaches():
    score = sum_up(ROWS, 0.9)
    assert (score.n, score.score) == (4, 0.75)
    assert (score.low, score.high) == interval([1.0, 0.0, 1.0, 1.0], 0.9)
    assert score.chance == pytest.approx((0.5 + 0.25 + 0.25 + 0.2) / 4)
    assert (score.majority, score.question_only) == (0.25, 0.75)
    assert score.swapped == pytest.approx(1 / 3)


def examined(rows, knock_out):
    return Examined(rows, {"2": [0.25, 0.75]}, knock_out)


def test_the_mean_and_the_bias_are_over_modalities_and_not_over_items():
    found = {
        "text": examined([judged(f"t{i}", 1.0) for i in range(9)], {}),
        "image": examined([judged("i", 0.5)], {"2": [0.1, 0.0]}),
        "audio": examined([judged("a", 0.25), judged("b", 0.25)], {}),
    }
    report = summarize("m", found, {}, ("base", "image"), 0.95)
    assert report.mean == pytest.approx((1.0 + 0.5 + 0.25) / 3)
    assert report.bias == pytest.approx(1.0 - 0.25)
    assert {name: score.n for name, score in report.modalities.items()} == {
        "text": 9,
        "image": 1,
        "audio": 2,
    }
    assert report.knock_out == {"image": {"2": [0.1, 0.0]}}
    assert report.load == {name: {"2": [0.25, 0.75]} for name in found}
    assert len(set(report.items.values())) == 3
    assert list(report.tasks) == ["made/what"]
    assert report.tasks["made/what"].n == 12
    assert report.tasks["made/what"].score == pytest.approx((9 + 0.5 + 0.5) / 12)


def test_a_group_is_summed_up_beside_its_task():
    rows = [judged("a", 1.0, group="color"), judged("b", 0.0, group="shape"), judged("c", 0.0)]
    scores = {name: sum_up(of, 0.9).score for name, of in by_task(rows).items()}
    assert scores == {
        "made/what": pytest.approx(1 / 3),
        "made/what:color": 1.0,
        "made/what:shape": 0.0,
    }


def test_an_item_is_judged_with_the_partners_media_and_its_own_reference():
    items = [item(str(i), answer=f"thing {i}", media=[("image", f"thing {i}")]) for i in range(5)]
    names = {one.media[0].sha256: one.turns[-1].text for one in items}
    said = judge(items, [], lambda asked, _: [names[a.media[0].sha256] for a in asked], seed=4)
    partners = derangement(items, 4)
    assert [one.scored.score for one in said] == [1.0] * 5
    assert [one.swapped.score for one in said] == [0.0] * 5
    for one in said:
        assert one.swapped_answer == partners[one.item.key].turns[-1].text


class Needing:
    """A recital whose items are right unless an expert that they need is masked."""

    def __init__(self, *needs):
        self.needs = needs

    def right(self, model):
        masked = model.sparse_layers()[0].router.masked
        return [float(not set(need) & set(masked)) for need in self.needs]


def test_a_knock_out_costs_the_share_of_all_items_that_needed_the_expert():
    model, _ = network()
    drops = knock_outs(model, [Needing([0], [0, 1], [2], []), Needing([0])], title="made")
    assert drops == {"0": [pytest.approx(0.6), pytest.approx(0.2), pytest.approx(0.2)]}


def test_where_every_token_needs_every_expert_there_is_nothing_to_knock_out():
    model, _ = network()
    assert knock_outs(model, [], title="made") == {}
    model.config.experts_per_token = 3
    assert knock_outs(model, [Needing([0])], title="made") == {}


def test_scores_of_several_sizes_have_their_plain_mean():
    rows = [judged(str(i), i / 7) for i in range(8)]
    score = sum_up(rows, 0.95)
    assert score.score == pytest.approx(fmean(i / 7 for i in range(8)))
    assert score.low < score.score < score.high
    assert score.swapped is None


@pytest.mark.parametrize(
    "other",
    [
        {"id": "other"},
        {"metric": "wer"},
        {"choices": ("yes", "no")},
        {"group": "color"},
        {"media": [("image", "b")]},
    ],
)
def test_a_set_of_items_is_known_by_what_is_asked_and_how_it_is_scored(other):
    fields = {"media": [("image", "a")]}
    same, changed = item("x", **fields), item("x", **(fields | other))
    assert items_hash([same]) == items_hash([item("x", **fields, key="another")])
    assert items_hash([same]) != items_hash([changed])
