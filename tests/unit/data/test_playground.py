from __future__ import annotations

import hashlib
import io
import itertools
import re
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
import soundfile
from PIL import Image
from workspace import PROJECT

from uni_moe.config import PlaygroundSource, load_params
from uni_moe.data.media import decode_image, decode_sound, decode_video, measure
from uni_moe.data.sources import open_source
from uni_moe.data.sources.playground.dice import Deck
from uni_moe.data.sources.playground.questions import QUESTIONS
from uni_moe.data.sources.playground.voices import VOICES
from uni_moe.data.sources.playground.writing import gif, png, wav
from uni_moe.errors import ConfigError
from uni_moe.records import modality_of

TOPICS = ("shapes", "motion", "sounds", "words", "digits")
COUNTS = {"text": 330, "image": 90, "video": 80, "audio": 70, "speech": 100}
PROMPTS = {text: kind for kind in QUESTIONS for text in QUESTIONS[kind].written}


def samples(root=PROJECT, **changes):
    plain = {"seed": 3, "train": COUNTS, "validation": 60, "test": 101, "text_topics": TOPICS}
    return list(
        open_source(PlaygroundSource("playground", "p", **(plain | changes)), root).samples()
    )


ALL = samples()


def modality(sample) -> str:
    return modality_of(media.kind for media in sample.media)


def questions(sample) -> list[tuple[str, str]]:
    """Return (last line of the prompt, answer) of each turn."""
    texts = [turn.text.strip() for turn in sample.turns]
    return list(zip(texts[::2], texts[1::2], strict=True))


def wording(prompt: str) -> str:
    return next(text for text in sorted(PROMPTS, key=len, reverse=True) if prompt.endswith(text))


@pytest.mark.parametrize(("answers", "wordings", "n"), [(6, 4, 100), (19, 1, 40), (8, 4, 75)])
def test_a_deck_deals_every_answer_and_every_wording_of_it_equally_often(answers, wordings, n):
    deck = Deck("seed", answers, wordings)
    dealt = [deck.deal() for _ in range(n)]
    assert spread(Counter(answer for answer, _ in dealt), answers) <= 1
    pairs = Counter(dealt)
    assert max(pairs.values()) - min(pairs.get(pair, 0) for pair in pairs) <= 1
    for a in range(answers):
        assert spread(Counter(w for b, w in dealt if a == b), wordings) <= 1


def spread(counts: Counter, cells: int) -> int:
    least = min(counts.values()) if len(counts) == cells else 0
    return max(counts.values()) - least


def test_every_answer_of_a_group_comes_equally_often():
    groups = defaultdict(Counter)
    for sample in ALL:
        if sample.split != "train":
            groups[sample.split, modality(sample), sample.group][sample.turns[-1].text] += 1
            assert sample.turns[-1].text in sample.choices
    assert len(groups) == 2 * (4 + 3 + 2 + 5 + 4 + 3 + 2 + 5 + 5)
    for (split, kind, group), counts in groups.items():
        closed = QUESTIONS[group.rpartition("/")[2]].answers
        assert spread(counts, len(closed)) <= 1, (split, kind, group, counts)


def test_every_answer_to_a_training_question_comes_equally_often():
    groups = defaultdict(Counter)
    for sample in ALL:
        if sample.split == "train" and sample.media and modality(sample) != "speech":
            for prompt, answer in questions(sample):
                groups[modality(sample), PROMPTS[wording(prompt)]][answer] += 1
    assert set(groups) >= {("image", "count"), ("video", "motion"), ("audio", "sound")}
    for (_, kind), counts in groups.items():
        assert spread(counts, len(QUESTIONS[kind].answers)) <= 1, (kind, counts)


@pytest.mark.parametrize("kind", ["image", "video", "audio", "speech"])
def test_the_question_alone_is_worth_no_more_than_chance(kind):
    seen = defaultdict(Counter)
    mine = [sample for sample in samples(train={kind: 600}, test=600) if modality(sample) == kind]
    for sample in mine:
        if sample.split == "train":
            for prompt, answer in questions(sample):
                seen[prompt][answer] += 1
    test = [sample for sample in mine if sample.split == "test"]
    hits = sum(
        seen[prompt].most_common(1)[0][0] == answer
        for sample in test
        for prompt, answer in questions(sample)
    )
    chance = sum(1 / len(sample.choices) for sample in test)
    assert hits / len(test) <= chance / len(test) + 0.04


def test_training_samples_ask_twice_or_thrice_and_items_once():
    for sample in ALL:
        asked = len(questions(sample))
        captioned = not sample.media and asked == 1
        assert asked in (2, 3) or captioned if sample.split == "train" else asked == 1


def test_media_samples_say_what_they_show():
    for sample in ALL:
        if sample.media:
            spoken = modality(sample) == "speech"
            assert (sample.transcript is not None) == spoken
            assert (sample.caption is not None) == (not spoken)
            assert (sample.subject in VOICES) == spoken


def test_a_text_reads_every_word_that_other_modalities_use():
    read = {word for sample in ALL if not sample.media for word in words(sample)}
    spoken = {word for sample in ALL if sample.media for word in words(sample)}
    assert spoken <= read


def words(sample) -> set[str]:
    texts = [turn.text for turn in sample.turns] + [sample.caption or "", sample.transcript or ""]
    return set(re.findall(r"[a-z]+|\d+", " ".join(texts).lower()))


def test_no_text_is_told_twice():
    told = [sample.turns for sample in ALL if not sample.media]
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("topics", [TOPICS[:-1], TOPICS[-1:]])
def test_no_training_text_tells_the_scene_of_a_held_out_one(topics):
    scenes = defaultdict(set)
    for sample in samples(train={"text": 400}, validation=40, test=80, text_topics=topics):
        asked = sample.turns[::2] if topics == TOPICS[-1:] else sample.turns[:1]
        scenes[sample.split] |= {
            re.split(r" The voice asks:| (Describe|Transcribe) the", turn.text)[0]
            if turn.text.endswith(".") or "asks:" in turn.text
            else turn.text.removesuffix(wording(turn.text)).strip()
            for turn in asked
        }
    assert all(len(found) > 30 for found in scenes.values())
    for one, other in itertools.combinations(scenes.values(), 2):
        assert not one & other


def test_two_digits_have_the_answers_of_digitmix():
    digits = QUESTIONS["hand"].answers
    for sample in ALL:
        if sample.group in ("digits/compare", "digits/match", "digits/sum"):
            prompt, answer = questions(sample)[0]
            told = prompt.removesuffix(wording(prompt))
            named = {w: told.index(w) for w in ("hand", "voice")}
            order = [digits.index(word) for word in re.findall("|".join(digits), told)]
            hand, voice = order if named["hand"] < named["voice"] else order[::-1]
            greater = "same" if hand == voice else "hand" if hand > voice else "voice"
            expected = {"compare": greater, "match": "yes" if hand == voice else "no"}
            assert answer == expected.get(sample.group[7:], str(hand + voice))


def fingerprint(found) -> dict[str, str]:
    prints = {}
    for sample in found:
        data = b"".join(load() for media in sample.media for load in media.members)
        text = repr((sample.turns, sample.caption, sample.transcript, sample.subject, sample.group))
        prints[sample.name] = hashlib.sha256(data + text.encode()).hexdigest()
    return prints


SMALL = {"text": 10, "image": 4, "video": 3, "audio": 3, "speech": 8}


def test_another_count_changes_no_other_sample():
    few = fingerprint(samples(train=SMALL, validation=1, test=2))
    more = fingerprint(samples(train={**SMALL, "image": 7, "speech": 11}, validation=2, test=2))
    assert len(more) == len(few) + 6 + 5
    assert few.items() <= more.items()


def test_another_process_makes_the_same_bytes_in_another_order():
    code = (
        "import sys; sys.path[:0] = [{here!r}, {root!r}]\n"
        "import test_playground as t\n"
        "made = t.fingerprint(t.samples(train=t.SMALL, validation=1, test=1)[::-1])\n"
        "print(t.hashlib.sha256(repr(sorted(made.items())).encode()).hexdigest())"
    ).format(here=str(PROJECT / "tests/unit/data"), root=str(PROJECT))
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    made = fingerprint(samples(train=SMALL, validation=1, test=1))
    assert other.stdout.strip() == hashlib.sha256(repr(sorted(made.items())).encode()).hexdigest()


def test_media_keep_the_declared_sizes():
    for sample in samples(
        train={"image": 3, "video": 3, "audio": 3, "speech": 9}, test=0, validation=0
    ):
        for media in sample.media:
            facts = measure(media.kind, [media.members[0]()])
            if media.kind in ("image", "video"):
                assert (facts.width_px, facts.height_px) == (48, 48)
                assert media.kind == "image" or facts.frames == 8
            else:
                assert facts.sample_rate_hz == 16000
                assert facts.duration_s <= (2.0 if media.kind == "audio" else 3.0)


def test_only_the_order_of_a_film_tells_its_motion():
    film = next(s for s in ALL if s.caption and s.caption.endswith("moving right."))
    frames = decode_video([film.media[0].members[0]()], want=8)
    bright = [
        (np.asarray(frame, dtype=float).max(axis=2) > 120).nonzero()[1].mean() for frame in frames
    ]
    assert (np.diff(bright) > 0).all()


@pytest.mark.parametrize(("color", "channel"), [("red", 0), ("green", 1), ("blue", 2)])
def test_a_picture_has_the_color_it_is_said_to_have(color, channel):
    shown = [
        s for s in ALL if s.caption and s.caption.startswith(f"A {color}") and len(s.media) == 1
    ]
    for sample in (s for s in shown if s.media[0].kind == "image"):
        pixels = np.asarray(decode_image(sample.media[0].members[0]()), dtype=int).reshape(-1, 3)
        strongest = pixels[np.ptp(pixels, axis=1).argsort()[-30:]]
        assert (strongest.argmax(axis=1) == channel).all()


def test_our_writers_are_read_by_other_readers():
    pixels = np.arange(48 * 48 * 3, dtype=np.uint8).reshape(48, 48, 3)
    assert (np.asarray(Image.open(io.BytesIO(png(pixels)))) == pixels).all()
    palette = np.arange(48, dtype=np.uint8).reshape(16, 3)
    frames = [(np.arange(2304).reshape(48, 48) + i).astype(np.uint8) % 16 for i in range(3)]
    film = Image.open(io.BytesIO(gif(frames, palette, frame_ms=100)))
    for index, frame in enumerate(frames):
        film.seek(index)
        assert (np.asarray(film.convert("RGB")) == palette[frame]).all()
    wave = np.sin(np.arange(4001) / 7) * np.linspace(0, 1, 4001)
    read, rate = soundfile.read(io.BytesIO(wav(wave, rate_hz=16000)))
    assert (rate, len(read)) == (16000, 4001)
    assert np.abs(read - wave).max() < 0.02
    assert len(decode_sound([wav(wave, rate_hz=16000)])) == 4001


def test_counts_and_modalities_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="smell"):
        samples(train={"smell": 3})
    with pytest.raises(ConfigError, match="below 0"):
        samples(test=-1)


def test_the_default_recipe_has_a_playground():
    kinds = [type(source) for source in load_params(PROJECT / "params.yaml").sources]
    assert PlaygroundSource in kinds
