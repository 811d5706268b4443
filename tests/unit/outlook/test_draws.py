from dataclasses import replace

import pytest

from tests.unit.outlook.corpora import corpus, gone, made, sample
from uni_moe.artifacts import Layout
from uni_moe.config import load_params
from uni_moe.errors import DataError
from uni_moe.extent import Extent
from uni_moe.lengths import Fitted
from uni_moe.outlook import draws
from uni_moe.outlook.draws import look, pools
from uni_moe.workspace import recipe_file

PARAMS = load_params(recipe_file("smoke"))
PHASE = replace(PARAMS.align["speech"], steps=3, tasks=("caption",))
PROMPTS = PARAMS.prepare.caption_prompts


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


class Limits:
    """Lengths by name: what is long is cut, what is endless is refused."""

    def fitted(self, sample):
        if "endless" in sample.key:
            raise DataError("too long", cause="a test", remedy="none")
        return Fitted(None, 1, truncated=int("long" in sample.key))


def test_without_a_corpus_nothing_can_be_said(layout):
    assert look(layout, PHASE, PROMPTS, ("speech",)) is None


def test_what_is_not_drawn_has_a_reason(layout):
    answers = replace(PHASE, tasks=("answer",), batch_size=2)
    rows = [sample("a", "speech"), sample("b", "speech"), sample("seen", "image", "speech")]
    corpus(layout, rows)
    looked = look(layout, answers, PROMPTS, ("speech",))
    found = pools(looked, answers, 2, None)["speech"]
    assert (found.conversations, found.out_of_sight, found.other_task) == (2, 1, 0)
    assert (found.draws, found.not_reached, found.epochs) == (6, 0, 3.0)


def test_a_corpus_of_earlier_samples_is_marked_as_older(layout):
    samples, validated = layout.samples("speech"), layout.validated("speech")
    for seed, older in ((1, False), (2, True)):
        with made(layout, samples, seed=seed):
            pass
        if not older:
            with made(layout, validated, samples):
                pass
            corpus(layout, [sample("a", "speech")], parents=(samples, validated))
        looked = look(layout, PHASE, PROMPTS, ("speech",))
        assert pools(looked, PHASE, 1, None)["speech"].older is older


def test_a_sample_without_words_has_no_conversation_for_a_caption(layout):
    corpus(layout, [sample("a", "speech"), sample("mute", "speech", transcript=None)])
    looked = look(layout, PHASE, PROMPTS, ("speech",))
    found = pools(looked, PHASE, 1, None)["speech"]
    assert (found.conversations, found.other_task) == (1, 1)


def test_conversations_that_are_too_long_are_cut_or_refused(layout):
    rows = [sample(name, "speech") for name in ("a", "long", "endless", "z")]
    corpus(layout, rows)
    looked = look(layout, PHASE, PROMPTS, ("speech",))
    found = pools(looked, PHASE, 1, Limits())["speech"]
    assert (found.cut, found.refused, found.exact) == (1, 1, True)
    assert found.not_reached == 4 - PHASE.steps


def test_of_a_large_corpus_a_part_is_looked_at_and_stands_for_all(layout, monkeypatch):
    monkeypatch.setattr(draws, "MOST_SAMPLES", 10)
    corpus(layout, [sample(f"{i:03}", "speech") for i in range(40)], held_out=20)
    looked = look(layout, PHASE, PROMPTS, ("speech",))
    found = pools(looked, PHASE, 1, None)["speech"]
    assert (len(looked.seen["speech"]), found.conversations, found.exact) == (10, 40, False)
    assert sum(times for _, times in looked.media()) == pytest.approx(60)


def test_of_a_large_corpus_holes_are_thinned_like_samples(layout, monkeypatch):
    monkeypatch.setattr(draws, "MOST_SAMPLES", 10)
    measured = [gone(f"s/gone{i:03}", {"caption": Extent(7)}) for i in range(20)]
    corpus(layout, [sample(f"{i:03}", "speech") for i in range(40)], gone=measured)
    looked = look(layout, PHASE, PROMPTS, ("speech",))
    assert (len(looked.seen["speech"]), len(looked.holes["speech"])) == (10, 5)


def test_of_thinned_holes_one_that_nobody_measured_stays(layout, monkeypatch):
    monkeypatch.setattr(draws, "MOST_SAMPLES", 10)
    holes = [gone(f"s/gone{i:03}", {"caption": Extent(7)} if i != 6 else {}) for i in range(20)]
    corpus(layout, [sample(f"{i:03}", "speech") for i in range(40)], gone=holes)
    looked = look(layout, PHASE, PROMPTS, ("speech",))
    assert None in looked.holes["speech"].values()
