"""The gate, as a table of cases."""

import math
from dataclasses import replace

import pytest

from uni_moe.config import Gate
from uni_moe.records import EvalReport, Score
from uni_moe.registry.gate import Verdict, decide

RULES = Gate(margin=0.03, min_over_chance=0.25)


def score(share, *, chance=0.0, majority=0.25, swapped=0.3):
    return Score(100, share, share - 0.05, share + 0.05, chance, majority, majority, swapped)


def report(model, items="same", **shares):
    scores = {name: score(s, swapped=None if name == "text" else 0.3) for name, s in shares.items()}
    return EvalReport(
        model=model,
        items=dict.fromkeys(shares, items),
        modalities=scores,
        tasks={},
        mean=sum(shares.values()) / len(shares),
        bias=0.0,
        losses={},
        slots=("base",),
        load={},
        knock_out={},
    )


CHAMPION = report("old", image=0.60, audio=0.60)

CASES = {
    "the first good model is promoted": (report("new", image=0.6, audio=0.6), None, True, "is no"),
    "exactly the share above guessing is enough": (report("new", image=0.50), None, True, "50.0 %"),
    "a modality close to guessing": (
        report("new", image=0.6, audio=0.4951),
        None,
        False,
        "audio: 49.5 % is 24.51 points above guessing (25.0 %); the gate asks for 25.00 points",
    ),
    "text may be guessed": (report("new", text=0.26, image=0.6), None, True, "text: 26.0 %"),
    "a better model": (
        report("new", image=0.61, audio=0.60),
        CHAMPION,
        True,
        "mean 60.5 % against the champion's 60.0 %",
    ),
    "equal in the mean is enough": (report("new", image=0.58, audio=0.62), CHAMPION, True, "60.0"),
    "exactly the margin is allowed": (
        report("new", image=0.57, audio=0.70),
        CHAMPION,
        True,
        "image: 57.0 %",
    ),
    "one modality loses more than the margin": (
        report("new", image=0.56, audio=0.90),
        CHAMPION,
        False,
        "image: 56.0 % is 4.00 points below the champion's 60.0 %; the gate allows 3.00 points",
    ),
    "a lower mean": (
        report("new", image=0.59, audio=0.60),
        CHAMPION,
        False,
        "mean 59.5 % is below the champion's 60.0 %",
    ),
    "other items": (
        report("new", items="other", image=0.9, audio=0.9),
        CHAMPION,
        False,
        "by `uni-moe judge`",
    ),
    "a modality that the champion was not judged on": (
        report("new", image=0.9, audio=0.9, video=0.9),
        CHAMPION,
        False,
        "video: candidate and champion were judged on different items",
    ),
    "a modality that is gone": (
        report("new", image=0.9),
        CHAMPION,
        False,
        "audio: candidate and champion were judged on different items",
    ),
    "no modality with media": (report("new", text=0.9), None, False, "no modality with media"),
    "a score that is no number": (report("new", image=math.nan), None, False, "image: nan %"),
    "text that is no number": (
        report("new", image=0.9, text=math.nan),
        report("old", image=0.9, text=0.9),
        False,
        "text: nan %",
    ),
    "the same model again": (CHAMPION, CHAMPION, False, "is the champion already"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_gate_decides(case):
    candidate, champion, promoted, said = CASES[case]
    verdict = decide(candidate, champion, RULES)
    assert verdict.promoted is promoted
    assert said in "\n".join(verdict.reasons)
    assert verdict.candidate == candidate.model
    assert verdict.champion == (champion.model if champion else None)


def test_the_larger_of_chance_and_majority_is_guessing():
    candidate = report("new", image=0.7)
    chance = replace(candidate, modalities={"image": score(0.7, chance=0.5, majority=0.1)})
    verdict = decide(chance, None, RULES)
    assert verdict.reasons == (
        "image: 70.0 % is 20.00 points above guessing (50.0 %); the gate asks for 25.00 points",
    )


def test_the_best_guess_from_the_question_alone_is_guessing_too():
    candidate = report("new", image=0.7)
    told = replace(candidate, modalities={"image": replace(score(0.7), question_only=0.6)})
    verdict = decide(told, None, RULES)
    assert not verdict.promoted
    assert "10.00 points above guessing (60.0 %)" in verdict.reasons[0]


def test_every_problem_is_told():
    verdict = decide(report("new", image=0.3, audio=0.3), CHAMPION, RULES)
    assert len(verdict.reasons) == 5  # two near guessing, two below the champion, the mean


def test_a_verdict_survives_json():
    verdict = decide(report("new", image=0.3, audio=0.3), CHAMPION, RULES)
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_a_verdict_holds_the_numbers_it_compared():
    evidence = decide(report("new", image=0.61, audio=0.60), CHAMPION, RULES).evidence
    assert evidence["rules"] == {"margin": 0.03, "min_over_chance": 0.25}
    assert evidence["modalities"]["image"] == {
        "candidate": 0.61,
        "champion": 0.60,
        "guessing": 0.25,
        "n": 100,
    }
