from collections import Counter

from uni_moe.config import SentencesSource
from uni_moe.data.sources.sentences import Sentences

SOURCE = SentencesSource("sentences", "words", 1, 60, {"What?": ("a", "b"), "How?": ("c",)})


def test_every_answer_comes_equally_often_and_stands_in_its_sentence():
    samples = list(Sentences(SOURCE).samples())
    assert len(samples) == len(Sentences(SOURCE)) == 60
    assert set(Counter(sample.turns[1].text for sample in samples).values()) == {20}
    assert all(sample.turns[1].text in sample.turns[0].text for sample in samples)


def test_more_sentences_change_none_of_the_first():
    more = SentencesSource("sentences", "words", 1, 90, SOURCE.answers)
    assert list(Sentences(more).samples())[:60] == list(Sentences(SOURCE).samples())
