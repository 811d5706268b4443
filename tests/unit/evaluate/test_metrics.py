"""Scores and intervals, each against a slow version or recorded numbers."""

import functools
import itertools
import math
import random
import statistics

import pytest

from uni_moe.evaluate.metrics import (
    bootstrap,
    interval,
    metric_of,
    normalize,
    score_answer,
    spoken,
    wilson,
    word_error_rate,
)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("red", "red", 1),
        ("Red.", "red", 1),
        ("  top   LEFT !", "top left", 1),
        ("Stra\N{LATIN SMALL LETTER SHARP S}e", "STRASSE", 1),
        ("cafe\N{COMBINING ACUTE ACCENT}", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", 1),
        ("a cat", "cat", 0),
        ("-3", "3", 0),
        ("5%", "5", 0),
        ("c++", "c", 0),
        ("", "red", 0),
        ("?", "!", 0),
        ("?", "?", 1),
        ("red red", "red", 0),
        ("3.5", "35", 0),
    ],
)
def test_exact_match_is_blind_to_case_spaces_and_closing_marks_alone(answer, reference, score):
    assert score_answer("exact_match", answer, reference, None).score == score


@pytest.mark.parametrize("answer", ["", "maybe", "yes no", "it is yes", "ye"])
def test_an_answer_outside_the_choices_is_unparseable_and_scores_nothing(answer):
    for metric in ("exact_match", "wer", "anything"):
        scored = score_answer(metric, answer, "yes", ("yes", "no"))
        assert (scored.score, scored.unparseable) == (0.0, True)


def test_an_answer_among_the_choices_is_right_or_wrong_and_parsed():
    assert score_answer("exact_match", "Yes.", "yes", ("yes", "no")).score == 1.0
    wrong = score_answer("exact_match", "no", "yes", ("yes", "no"))
    assert (wrong.score, wrong.unparseable) == (0.0, False)


def test_an_answer_that_no_choice_allows_never_scores_even_if_the_reference_is_broken():
    assert score_answer("exact_match", "perhaps", "perhaps", ("yes", "no")).score == 0.0


def test_a_metric_that_is_not_built_in_is_scored_by_exact_match():
    assert metric_of("cider+exact") == metric_of("exact_match") == "exact_match"
    assert score_answer("cider+exact", "a red cat", "a red dog", None).score == 0.0


def test_normalizing_twice_changes_nothing():
    for text in (
        "Red. ",
        "?!",
        " A  b. . ",
        "3.",
        "",
        "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}x",
    ):
        assert normalize(normalize(text)) == normalize(text)
        assert spoken(spoken(text)) == spoken(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop, please!", "don't stop please"),
        ("it\N{RIGHT SINGLE QUOTATION MARK}s 'so'", "it's so"),
        ("twenty-one; two", "twenty one two"),
        ("...", ""),
    ],
)
def test_words_are_compared_without_punctuation(text, words):
    assert spoken(text) == words


# Recorded with jiwer 4.0.0.
@pytest.mark.parametrize(
    ("reference", "answer", "rate"),
    [
        ("rubout g m e f three nine", "rubout g m e three nine", 0.14285714285714285),
        ("erase c q q f seven", "q fifty q f seven s", 0.6666666666666666),
        ("b a o z five three", "b a o z five", 0.16666666666666666),
    ],
)
def test_word_error_rate_equals_recorded_numbers(reference, answer, rate):
    assert word_error_rate(answer, reference) == pytest.approx(rate, abs=1e-12)


def edits_by_hand(said, wanted):
    @functools.cache
    def edits(i, j):
        if i == 0 or j == 0:
            return i + j
        return min(
            edits(i - 1, j) + 1,
            edits(i, j - 1) + 1,
            edits(i - 1, j - 1) + (said[i - 1] != wanted[j - 1]),
        )

    return edits(len(said), len(wanted))


def test_word_error_rate_equals_the_recursion():
    dice = random.Random(0)
    for _ in range(200):
        said = [dice.choice("abc") for _ in range(dice.randint(0, 7))]
        wanted = [dice.choice("abc") for _ in range(dice.randint(1, 7))]
        expected = edits_by_hand(tuple(said), tuple(wanted)) / len(wanted)
        assert word_error_rate(" ".join(said), " ".join(wanted)) == pytest.approx(expected)


def test_the_word_score_is_one_minus_the_rate_and_never_below_zero():
    assert score_answer("wer", "One two, four!", "one two three four", None).score == 0.75
    assert score_answer("wer", "a b c d e f", "x", None).score == 0.0
    assert score_answer("wer", "", "one two", None).score == 0.0


def wilson_by_hand(successes, n, confidence):
    """Find by bisection the shares from which the observation is just z deviations away."""
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    observed = successes / n

    def far(share):
        return abs(observed - share) > z * math.sqrt(share * (1 - share) / n)

    edges = []
    for outside in (0.0, 1.0):
        inside = observed
        if not far(outside):
            edges.append(outside)
            continue
        for _ in range(200):
            middle = (outside + inside) / 2
            outside, inside = (middle, inside) if far(middle) else (outside, middle)
        edges.append(inside)
    return tuple(edges)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_wilson_equals_the_solved_inequality(confidence):
    for successes, n in ((0, 5), (1, 5), (3, 7), (50, 100), (299, 300), (12, 12)):
        expected = wilson_by_hand(successes, n, confidence)
        assert wilson(successes, n, confidence) == pytest.approx(expected, abs=1e-9)


def test_wilson_equals_a_published_example():
    # R. G. Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 and 15 of 148.
    assert wilson(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148, 0.95) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_of_nothing_nothing_is_known():
    assert wilson(0, 0, 0.95) == (0.0, 1.0)
    assert interval([], 0.95) == (0.0, 1.0)


def test_the_bootstrap_comes_close_to_the_normal_interval_and_repeats_itself():
    dice = random.Random(1)
    scores = [dice.random() for _ in range(400)]
    low, high = bootstrap(scores, 0.95)
    half = 1.96 * statistics.stdev(scores) / math.sqrt(len(scores))
    assert low == pytest.approx(statistics.fmean(scores) - half, abs=0.004)
    assert high == pytest.approx(statistics.fmean(scores) + half, abs=0.004)
    assert bootstrap(scores, 0.95) == (low, high)


def test_shares_get_wilson_and_other_scores_the_bootstrap():
    for right, wrong in itertools.product((0, 3), (1, 4)):
        scores = [1.0] * right + [0.0] * wrong
        assert interval(scores, 0.9) == wilson(right, right + wrong, 0.9)
    assert interval([0.25, 1.0, 0.5], 0.9) == bootstrap([0.25, 1.0, 0.5], 0.9)
