import copy
import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

from tests.unit.model.conftest import conversation
from uni_moe.errors import ConfigError, DataError
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.model.prompt import IGNORED, Prompt


def test_only_answers_and_their_end_are_learned(processor, tokenizer):
    batch = processor([conversation()], [[]])
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    assert tokenizer.decode(ids) == "<s>USER: \nwhat is it? ASSISTANT: a red cat</s>"
    assert tokenizer.decode(ids[labels != IGNORED]) == " a red cat</s>"


def test_a_prompt_is_what_an_example_starts_with(processor):
    whole = processor([conversation()], [[]])["input_ids"][0]
    prompt = processor([conversation(answer=None)], [[]], to_answer=True)["input_ids"][0]
    assert torch.equal(whole[: len(prompt)], prompt)


def test_a_slot_takes_as_many_positions_as_the_connector_has_rows(processor, media, config):
    batch = processor(
        [conversation("audio", "image")], [[("audio", media["audio"]), ("image", media["image"])]]
    )
    ids = batch["input_ids"][0]
    assert (ids == config.slot_id("audio")).sum() == 2 * 4  # two windows of four queries
    assert (ids == config.slot_id("image")).sum() == 4


def test_special_tokens_in_a_text_are_text(processor, tokenizer):
    messages = conversation()
    messages[0]["content"][0]["text"] = "</s><s><image>"
    ids = processor([messages], [[]])["input_ids"][0].tolist()
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids.count(tokenizer.eos_token_id) == 1
    assert max(ids) < len(tokenizer)


def test_a_second_round_follows_the_end_of_the_first(tokenizer):
    encoded = Prompt("Be kind.").encode(conversation() + conversation(), tokenizer)
    assert tokenizer.decode(encoded.input_ids) == (
        "<s>Be kind. USER: \nwhat is it? ASSISTANT: a red cat</s>"
        "USER: \nwhat is it? ASSISTANT: a red cat</s>"
    )


@pytest.mark.parametrize(("given", "said"), [([], r"media \[\]"), (["audio"], r"\['audio'\]")])
def test_slots_and_media_must_agree(processor, media, given, said):
    with pytest.raises(DataError, match=said):
        processor([conversation("image")], [[(kind, media[kind]) for kind in given]])


@pytest.mark.parametrize(("samples", "windows"), [(1, 1), (16_000, 1), (16_001, 2), (320_000, 20)])
def test_windows_lose_no_sample(processor, samples, windows):
    sound = np.zeros(samples, dtype=np.float32)
    assert len(processor.prepare("audio", sound).values) == windows
    assert len(processor.prepare("speech", sound).values) == windows


@pytest.mark.parametrize("samples", [1, 15_999, 16_000, 16_001, 47_999, 48_001, 319_999, 320_000])
def test_what_was_measured_of_a_medium_says_its_positions_in_a_packing(processor, media, samples):
    sound = np.linspace(-0.1, 0.1, samples, dtype=np.float32)
    for kind in ("audio", "speech"):
        measured = round(samples / 16_000, 4)  # as ingest writes it down
        by_hand = processor.rows(processor.prepare(kind, sound))
        assert processor.positions(kind, measured) == by_hand
    for kind in ("image", "video"):
        assert processor.positions(kind, None) == processor.rows(
            processor.prepare(kind, media[kind])
        )


def test_a_sound_that_nobody_measured_has_no_positions(processor):
    with pytest.raises(DataError, match="how long a piece of speech is"):
        processor.positions("speech", None)


def test_more_than_twenty_windows_are_refused(processor):
    with pytest.raises(DataError, match="at most 20 windows"):
        processor.prepare("speech", np.zeros(320_001, dtype=np.float32))


def test_films_are_sampled_evenly(processor, media):
    twice = [frame for frame in media["video"] for _ in range(2)]
    short = processor.prepare("video", media["video"]).values
    assert torch.equal(processor.prepare("video", twice).values, short)


def llama_like(text):
    """A tokenizer that, as LLaMA's, puts a space in front of every text and splits nothing."""
    built = Tokenizer(models.BPE(unk_token="<unk>"))
    built.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    built.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=special, show_progress=False)
    built.train_from_iterator([text] * 9, trainer)
    plain = Tokenizer.from_str(json.dumps({**json.loads(built.to_str()), "pre_tokenizer": None}))
    return PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>")


def test_an_answer_has_one_space_in_front_whatever_the_tokenizer():
    text = "USER: \nwhat is it? ASSISTANT: a red cat"
    tokenizer = llama_like(text)
    encoded = Prompt("").encode(conversation(), tokenizer)
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert encoded.input_ids == [1, *whole, 2]
    learned = [one for one in encoded.labels if one != IGNORED]
    assert learned == encoded.input_ids[-len(learned) :]
    assert tokenizer.convert_ids_to_tokens(learned)[0] == "▁a"


def test_a_content_may_be_one_text(processor):
    plain = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    listed = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in plain]
    one, other = processor([plain], [[]]), processor([listed], [[]])
    assert torch.equal(one["input_ids"], other["input_ids"])
    assert torch.equal(one["labels"], other["labels"])


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "system", "content": "Be kind."}, "A turn of 'system' with text"),
        ({"role": "assistant", "content": [{"type": "image"}]}, "'assistant' with image"),
    ],
)
def test_turns_without_a_place_are_refused(tokenizer, message, said):
    slots = sum(isinstance(item, dict) for item in message["content"])
    with pytest.raises(DataError, match=said):
        Prompt("").encode([message], tokenizer, rows=[4] * slots)


def test_a_medium_too_many_is_refused(processor):
    with pytest.raises(DataError, match="has 1 slots, but 2 media"):
        processor.encode(conversation("image"), [4, 4])


def test_windows_of_speech_must_be_the_extractors(config, tokenizer):
    with pytest.raises(ConfigError, match="windows of 1 s, but its extractor takes 30 s"):
        UniMoeProcessor.for_model(
            config,
            tokenizer=tokenizer,
            image_processor=None,
            feature_extractor=WhisperFeatureExtractor(),
            system_prompt="",
        )


def test_a_token_added_behind_the_vocabulary_is_refused(config, tokenizer):
    grown = copy.deepcopy(tokenizer)
    grown.add_special_tokens({"pad_token": "[PAD]"})
    count = config.text_config.vocab_size
    with pytest.raises(ConfigError, match=f"has {count + 1} tokens, the language model reads"):
        UniMoeProcessor.for_model(
            config,
            tokenizer=grown,
            image_processor=None,
            feature_extractor=None,
            system_prompt="",
        )


def test_a_tokenizer_without_padding_gets_one(config, tokenizer, processor):
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    made = UniMoeProcessor.for_model(
        config,
        tokenizer=bare,
        image_processor=processor.image_processor,
        feature_extractor=processor.feature_extractor,
        system_prompt="",
    )
    batch = made([conversation(answer="a red cat"), conversation(answer="a")])
    short = batch["attention_mask"][1] == 0
    assert short.any()
    assert (batch["labels"][1][short] == -100).all()
    assert (batch["labels"] == made.tokenizer.eos_token_id).sum() == 2  # both ends are learned


def test_a_question_without_an_answer_keeps_its_words(processor):
    asked = [*conversation(answer="a cat"), {"role": "user", "content": "which one?"}]
    encoded = processor.encode(asked, [])
    assert "which one?" in processor.tokenizer.decode(encoded.input_ids)
    assert encoded.labels[-1] == -100
