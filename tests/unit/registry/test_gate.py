"""The gate, as a table of cases."""

import math
from dataclasses import asdict, fields, replace

import pytest

from tests.unit.registry.workspace import RULES
from uni_moe.config import Gate
from uni_moe.records import EvalReport, Score
from uni_moe.registry.gate import Exam, Verdict, decide, in_words

N = 400


def score(share, *, chance=0.0, majority=0.25, swapped=0.3, n=N):
    return Score(n, share, share - 0.05, share + 0.05, chance, majority, majority, swapped)


def exam(model, items="same", n=N, **right):
    """Return an exam from the items that were answered rightly, by modality."""
    scores = {
        name: [float(item in items_right) for item in range(n)]
        for name, items_right in right.items()
    }
    shares = {name: sum(found) / n for name, found in scores.items()}
    report = EvalReport(
        model=model,
        items=dict.fromkeys(right, items),
        modalities={
            name: score(share, swapped=None if name == "text" else 0.3, n=n)
            for name, share in shares.items()
        },
        tasks={},
        mean=sum(shares.values()) / len(shares),
        bias=0.0,
        losses={},
        slots=("base",),
        load={},
        knock_out={},
    )
    return Exam(report, scores)


def share_of(name, share, exam):
    """Return an exam whose report tells another share, as a broken one would."""
    scores = exam.report.modalities | {name: score(share)}
    return Exam(replace(exam.report, modalities=scores), exam.scores | {name: [share] * N})


CHAMPION = exam("old", image=range(240), audio=range(240))  # 60 % each

CASES = {
    "the first good model is promoted": (exam("new", image=range(240)), None, True, "is no"),
    "exactly the share above guessing is enough": (
        exam("new", image=range(200)),
        None,
        True,
        "50.0 %",
    ),
    "a modality close to guessing": (
        exam("new", image=range(240), audio=range(198)),
        None,
        False,
        "audio: 49.5 % is 24.50 points above guessing (25.0 %); the gate asks for 25.00 points",
    ),
    "text may be guessed": (
        exam("new", text=range(104), image=range(240)),
        None,
        True,
        "text: 26.0 %",
    ),
    "better in one, the same in the other": (
        exam("new", image=range(280), audio=range(240)),
        CHAMPION,
        True,
        "image: +10.00 points against the champion (+7.43 to +13.33; 400 items, 40 better, 0 worse",
    ),
    "the same in all": (
        exam("new", image=range(240), audio=range(240)),
        CHAMPION,
        False,
        "no modality is shown to be better",
    ),
    "better by less than can be seen": (
        exam("new", image=[*range(230), *range(240, 255)], audio=range(240)),
        CHAMPION,
        False,
        "the smallest difference that would be seen: 3.84 points",
    ),
    "exactly as many better as the others are worse": (
        exam("new", image=range(220), audio=range(260)),
        CHAMPION,
        False,
        "image: not shown to be no worse: 7.60 points may be lost, the gate allows 3.00 points; "
        "the loss itself is beyond that",
    ),
    "one modality loses, and the gain of the other does not help": (
        exam("new", image=range(224), audio=range(360)),
        CHAMPION,
        False,
        "the loss itself is beyond that",
    ),
    "few items that all agree show nothing": (
        exam("new", n=20, image=range(14), audio=range(18)),
        exam("old", n=20, image=range(14), audio=range(14)),
        False,
        "image: not shown to be no worse: 16.11 points may be lost, the gate allows 3.00 points; "
        "with 20 items the interval is too wide, about 125 would do",
    ),
    "other items": (
        exam("new", items="other", image=range(360), audio=range(360)),
        CHAMPION,
        False,
        "by `uni-moe judge`",
    ),
    "scored otherwise": (
        replace(exam("new", image=range(360), audio=range(360)), how={"longest answer": 32}),
        replace(CHAMPION, how={"longest answer": 64}),
        False,
        "longest answer: the candidate was scored by 32, the champion by 64, so their scores "
        "cannot be compared; judge each anew by `uni-moe judge VERSION`",
    ),
    "a modality that the champion was not judged on": (
        exam("new", image=range(360), audio=range(360), video=range(360)),
        CHAMPION,
        False,
        "video: candidate and champion were judged on different items",
    ),
    "a modality that is gone": (
        exam("new", image=range(360)),
        CHAMPION,
        False,
        "audio: candidate and champion were judged on different items",
    ),
    "no modality with media": (
        exam("new", text=range(360)),
        None,
        False,
        "no modality with media",
    ),
    "a score that is no number": (
        share_of("image", math.nan, exam("new", image=range(9))),
        None,
        False,
        "image: nan %",
    ),
    "text that is no number": (
        share_of("text", math.nan, exam("new", image=range(400), text=range(360))),
        exam("old", image=range(300), text=range(360)),
        False,
        "text: not shown to be no worse: 100.00 points may be lost",
    ),
    "the same model again": (CHAMPION, CHAMPION, False, "is the champion already"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_gate_decides(case):
    candidate, champion, promoted, said = CASES[case]
    verdict = decide(candidate, champion, RULES)
    assert said in "\n".join(verdict.reasons)
    assert verdict.promoted is promoted
    assert verdict.candidate == candidate.report.model
    assert verdict.champion == (champion.report.model if champion else None)


def test_the_larger_of_chance_and_majority_is_guessing():
    candidate = exam("new", image=range(280))
    scores = {"image": score(0.7, chance=0.5, majority=0.1)}
    told = Exam(replace(candidate.report, modalities=scores), candidate.scores)
    assert decide(told, None, RULES).reasons == (
        "image: 70.0 % is 20.00 points above guessing (50.0 %); the gate asks for 25.00 points",
    )


def test_the_best_guess_from_the_question_alone_is_guessing_too():
    candidate = exam("new", image=range(280))
    scores = {"image": replace(score(0.7), question_only=0.6)}
    verdict = decide(Exam(replace(candidate.report, modalities=scores), {}), None, RULES)
    assert not verdict.promoted
    assert "10.00 points above guessing (60.0 %)" in verdict.reasons[0]


def test_every_problem_of_the_gate_is_told_with_every_difference():
    verdict = decide(exam("new", image=range(120), audio=range(120)), CHAMPION, RULES)
    # two near guessing, two that lose too much, none better, and both differences
    assert len(verdict.reasons) == 7


def test_a_verdict_of_the_gate_survives_json():
    verdict = decide(exam("new", image=range(120), audio=range(120)), CHAMPION, RULES)
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_a_verdict_of_the_gate_holds_the_numbers_it_compared():
    evidence = decide(exam("new", image=range(280), audio=range(240)), CHAMPION, RULES).evidence
    assert evidence["rules"] == asdict(RULES)
    told = dict(evidence["modalities"]["image"])
    paired = told.pop("paired")
    assert told == {"candidate": 0.7, "champion": 0.6, "guessing": 0.25, "n": N}
    assert (paired["n"], paired["better"], paired["worse"]) == (N, 40, 0)
    assert paired["difference"] == pytest.approx(0.1)
    assert paired["surely"] < paired["low"] < paired["difference"] < paired["high"]


@pytest.mark.parametrize("margin", [0.0, 0.03, 1.0])
def test_a_margin_of_the_gate_of_one_forbids_nothing(margin):
    worse = exam("new", image=range(300), audio=range(200))
    verdict = decide(worse, CHAMPION, replace(RULES, margin=margin))
    assert verdict.promoted is (margin == 1.0)


def test_every_rule_of_the_gate_that_decides_is_said_in_words():
    said = in_words(RULES, champion=3)
    decides = {rule.name for rule in fields(Gate)} - {"power"}
    assert {name for name in decides if f"`gate.{name}`" in said} == decides
    for number in ("version 3", "3.00 points", "25.00 points", "95.0 %", "nobody has to approve"):
        assert number in said


def test_without_a_champion_the_words_of_the_gate_ask_for_no_comparison():
    said = in_words(replace(RULES, approvals=2), champion=None)
    assert "there is no champion" in said
    assert "gate.margin" not in said
    assert "2 people have to approve it" in said


def test_the_words_of_the_gate_ask_for_what_it_decides_by():
    """A mean that falls forbids nothing, a candidate without a modality shown better fails."""
    fallen = exam("new", image=range(300), audio=range(235), text=range(160))
    champion = exam("old", image=range(240), audio=range(240), text=range(240))
    assert decide(fallen, champion, replace(RULES, margin=1.0)).promoted
    assert not decide(exam("new", image=range(240), audio=range(240)), CHAMPION, RULES).promoted
    said = in_words(RULES, champion=3)
    assert "mean" not in said
    assert "one must be shown to be better" in said
