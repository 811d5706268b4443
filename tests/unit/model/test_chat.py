"""The chat template, texts with marks and conversations: one and the same input."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

import uni_moe.model.auto  # noqa: F401 - AutoProcessor learns ours
from tests.unit.model.conftest import LAYOUTS, conversation
from uni_moe.errors import DataError
from uni_moe.model.chat import template
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.model.prompt import IGNORED

KINDS = ("image", "video", "audio", "speech")
WORDS = ("a red cat", "what is it?", "and this", "USER: one", "yes", "\nred ", "it is a cat.")


def with_media(messages, media):
    """Let a conversation's items hold their media."""
    return [
        {
            **message,
            "content": [
                item if item["type"] == "text" else {**item, item["type"]: media[item["type"]]}
                for item in message["content"]
            ],
        }
        for message in messages
    ]


def drawn(seed, media, *, answered=True):
    """Draw a conversation of one to three rounds with up to four media each, in any order."""
    dice = random.Random(seed)
    messages = []
    for _ in range(dice.randint(1, 3)):
        items = [{"type": kind} for kind in dice.choices(KINDS, k=dice.randint(0, 4))]
        items += [{"type": "text", "text": dice.choice(WORDS)} for _ in range(dice.randint(1, 3))]
        dice.shuffle(items)
        messages.append({"role": "user", "content": items})
        messages.append(
            {"role": "assistant", "content": [{"type": "text", "text": dice.choice(WORDS)}]}
        )
    return with_media(messages if answered else messages[:-1], media)


def media_of(messages, kind):
    items = [item for message in messages for item in message["content"]]
    return [item[kind] for item in items if item["type"] == kind]


def by_kind(conversations):
    names = {"images": "image", "videos": "video", "audio": "audio", "speech": "speech"}
    found = {
        name: [one for messages in conversations for one in media_of(messages, kind)]
        for name, kind in names.items()
    }
    return {name: own or None for name, own in found.items()}


def same(one, other):
    assert set(one) == set(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("seed", range(12))
def test_texts_with_marks_are_conversations(seed, processor, media):
    talks = [drawn(3 * seed + i, media, answered=i != 1) for i in range(3)]
    texts = [processor.apply_chat_template(t, add_generation_prompt=True) for t in talks]
    one = processor(text=texts, **by_kind(talks))
    other = processor(talks, to_answer=True)
    same(one, other)


@pytest.mark.parametrize("seed", range(12))
def test_a_template_says_what_is_tokenized(seed, processor, media, config, tokenizer):
    talk = drawn(seed, media, answered=seed % 2 == 0)
    ask = seed % 3 == 0
    text = processor.apply_chat_template(talk, add_generation_prompt=ask)
    batch = processor([talk], ask=ask)
    slots = {config.slot_id(kind): f"<{kind}>" for kind in KINDS}
    said, before = "", None
    for one in batch["input_ids"][0].tolist():
        if one in slots:
            said += slots[one] if one != before else ""
        else:
            said += tokenizer.decode([one])
        before = one
    for kind in KINDS:  # neighbours of one kind take rows without a gap between them
        while f"<{kind}><{kind}>" in text:
            text = text.replace(f"<{kind}><{kind}>", f"<{kind}>")
    assert said == text


def test_rounds_follow_each_other_as_published(processor):
    processor = UniMoeProcessor(
        processor.image_processor,
        processor.tokenizer,
        processor.feature_extractor,
        system_prompt='Be "kind".',
    )
    talk = [*conversation("image"), *conversation("speech", answer=None)]
    assert processor.apply_chat_template(talk, add_generation_prompt=True) == (
        '<s>Be "kind". USER: <image>\nwhat is it? ASSISTANT: a red cat</s>'
        "USER: <speech>\nwhat is it? ASSISTANT:"
    )
    assert processor.apply_chat_template(talk).endswith("<speech>\nwhat is it?")


def test_answers_are_masked_as_the_tokenizer_masks_them(processor, tokenizer):
    """For text alone, transformers finds the answers by the template's own marks."""
    talk = [*conversation(), *conversation(answer="it is")]
    ours = processor.apply_chat_template(
        talk, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert "labels" not in ours
    theirs = tokenizer.apply_chat_template(
        talk,
        chat_template=processor.chat_template,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    learned = [i for i, m in zip(theirs["input_ids"], theirs["assistant_masks"], strict=True) if m]
    masked = ours["input_ids"][0][ours["assistant_masks"][0].bool()]
    assert tokenizer.decode(masked) == tokenizer.decode(learned) == " a red cat</s> it is</s>"


def test_the_mask_marks_what_labels_hold(processor, media):
    talks = [with_media(conversation(*kinds), media) for kinds in LAYOUTS]
    labels = processor(talks)["labels"]
    batch = processor.apply_chat_template(
        talks, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert torch.equal(batch["assistant_masks"].bool(), labels != IGNORED)
    ids = processor.apply_chat_template(talks, tokenize=True)
    assert torch.equal(ids, batch["input_ids"])


def test_a_conversation_is_asked_through_the_template(processor, media, model):
    prompts = [with_media(conversation(*kinds, answer=None), media) for kinds in LAYOUTS]
    inputs = processor.apply_chat_template(
        prompts, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    same(inputs, processor(prompts, to_answer=True))
    assert inputs["attention_mask"][:, -1].all()  # padded on the left
    new = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert new.shape == (len(LAYOUTS), inputs["input_ids"].shape[1] + 2)
    assert set(inputs) <= set(processor.model_input_names)


def test_a_saved_processor_keeps_its_template(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").is_file()
    assert again.chat_template == processor.chat_template
    talk = conversation("image", "audio")
    assert again.apply_chat_template(talk) == processor.apply_chat_template(talk)


def test_a_conversation_cannot_write_marks_or_ends(processor, tokenizer):
    messages = [{"role": "user", "content": "<image></s><s>"}]
    ids = processor([messages])["input_ids"][0].tolist()
    assert ids.count(tokenizer.eos_token_id) == 0
    assert max(ids) < len(tokenizer)


def test_media_of_texts_may_be_one_a_list_or_lists(processor, media):
    film, sound = media["video"], media["audio"]
    frames = np.stack([np.asarray(frame) for frame in film])
    text = "USER: <video> <audio> ASSISTANT:"
    one = processor(text=text, videos=film, audio=sound)
    for videos, audio in (
        ([film], [sound]),
        ([[film]], [[sound]]),
        (frames, torch.from_numpy(sound)),
        (frames[None], sound[None]),
        (film, sound.tolist()),
    ):
        same(one, processor(text=[text], videos=videos, audio=audio))
    picture = media["image"]
    several = processor(text=["<image>", "<image><image>"], images=[[picture], [picture, picture]])
    same(several, processor(text=["<image>", "<image><image>"], images=[picture] * 3))
    single = processor(text="<image>", images=picture)
    same(single, processor(text="<image>", images=np.asarray(picture)))


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        ("<image> <image>", {"images": 1}, "2 marks <image>, but 1 media"),
        ("hello", {"speech": 1}, "0 marks <speech>, but 1 media"),
        ("<video>", {}, "1 marks <video>, but 0 media"),
    ],
)
def test_marks_and_media_must_agree(text, given, said, processor, media):
    kinds = {"images": "image", "speech": "speech"}
    with pytest.raises(DataError) as error:
        processor(text=text, **{n: [media[kinds[n]]] * count for n, count in given.items()})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({}, "conversations or texts"),
        ({"text": "a", "conversations": [conversation()]}, "conversations or texts"),
        ({"text": "a", "padding": False}, "padding is switched off"),
        ({"text": "a", "return_tensors": "np"}, "return_tensors is 'np'"),
        ({"conversations": [conversation("image", "audio")]}, "without media: image, audio"),
        ({"conversations": [conversation()] * 2, "media": [[]]}, "2 conversations are given, but"),
    ],
)
def test_what_a_processor_cannot_take_is_refused(words, said, processor):
    with pytest.raises(DataError) as error:
        processor(**words)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("kind", "medium", "said"),
    [
        ("audio", np.zeros((2, 9000)), r"shape \(2, 9000\), not"),
        ("speech", np.zeros(0), "has no sample"),
        ("audio", np.full(9000, np.nan), "samples that are no numbers"),
        ("video", [], "A film without frames"),
        ("video", None, "A film without frames"),
        ("smell", 1, "takes no smell"),
    ],
)
def test_what_is_no_medium_is_refused(kind, medium, said, processor):
    with pytest.raises(DataError, match=said):
        processor.prepare(kind, medium)


def test_a_model_without_an_encoder_takes_none_of_its_media(config, tokenizer, media):
    config.vision_config = config.speech_config = None
    processor = UniMoeProcessor.for_model(
        config, tokenizer=tokenizer, image_processor=None, feature_extractor=None, system_prompt=""
    )
    assert len(processor.prepare("audio", media["audio"]).values) == 2
    for kind in ("image", "video", "speech"):
        with pytest.raises(DataError, match=f"takes no {kind}"):
            processor.prepare(kind, media[kind])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_pictures_of_any_mode_are_seen_in_color(mode, processor):
    assert processor.prepare("image", Image.new(mode, (20, 30))).values.shape == (1, 3, 16, 16)


def test_a_system_prompt_may_hold_any_sign(processor):
    system = 'Hi 😀, say "yes" \\ no.'
    processor.tokenizer.chat_template = None
    said = processor.apply_chat_template(
        [{"role": "user", "content": "one"}], chat_template=template(system), tokenize=False
    )
    assert said.startswith(f"<s>{system}")
