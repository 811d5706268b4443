"""What is learned of a conversation, and the loss of it, by hand."""

import math

import pytest
import torch

from uni_moe.model.prompt import IGNORED
from uni_moe.model.router import Routing


def turn(role, *content):
    items = [
        {"type": c} if c in ("image", "speech") else {"type": "text", "text": c} for c in content
    ]
    return {"role": role, "content": items}


TALK = (
    turn("user", "image", "\nwhat is it?"),
    turn("assistant", "a red cat"),
    turn("user", "and ", "speech", "this: a cat?"),
    turn("assistant", "it is"),
)


@pytest.fixture
def talk_batch(processor, media):
    own = [(kind, media[kind]) for kind in ("image", "speech")]
    return processor([TALK, TALK[:2]], [own, own[:1]])


def learned_runs(ids, labels, tokenizer):
    """Return the texts of consecutive learned tokens."""
    runs, before = [], False
    for token, label in zip(ids.tolist(), labels.tolist(), strict=True):
        if label != IGNORED:
            assert label == token
            runs = [*runs, [token]] if not before else [*runs[:-1], [*runs[-1], token]]
        before = label != IGNORED
    return [tokenizer.decode(run) for run in runs]


def test_answers_and_their_ends_are_learned_and_questions_slots_and_padding_are_not(
    talk_batch, tokenizer, config
):
    ids, labels = talk_batch["input_ids"], talk_batch["labels"]
    assert learned_runs(ids[0], labels[0], tokenizer) == [" a red cat</s>", " it is</s>"]
    assert learned_runs(ids[1], labels[1], tokenizer) == [" a red cat</s>"]
    in_slot = ids >= config.text_config.vocab_size
    assert in_slot.sum(1).tolist() == [8, 4]
    assert (labels[in_slot] == IGNORED).all()
    assert (labels[talk_batch["attention_mask"] == 0] == IGNORED).all()


def test_a_prompt_holds_everything_up_to_the_answer_that_is_asked_for(processor, media, tokenizer):
    own = [(kind, media[kind]) for kind in ("image", "speech")]
    whole = processor([TALK], [own])["input_ids"][0].tolist()
    prompt = processor([TALK[:3]], [own], to_answer=True)["input_ids"][0].tolist()
    assert whole[: len(prompt)] == prompt
    assert tokenizer.decode(whole[len(prompt) :]) == " it is</s>"


def loss_by_hand(logits, labels):
    """Return each row's sum of -log p over its labels, and how many there are."""
    rows = []
    for row, wanted in zip(logits.detach().double(), labels.tolist(), strict=True):
        losses = [
            math.log(sum(math.exp(x) for x in row[place - 1].tolist()))
            - float(row[place - 1][label])
            for place, label in enumerate(wanted)
            if place > 0 and label != IGNORED
        ]
        rows.append((sum(losses), len(losses)))
    return rows


def test_the_loss_of_a_short_conversation_is_what_it_is_by_hand(model, talk_batch):
    out = model(**talk_batch, full_logits=True)
    by_hand = loss_by_hand(out.logits, talk_batch["labels"])
    assert out.loss_sum_B.tolist() == pytest.approx([total for total, _ in by_hand], abs=1e-4)
    assert out.loss_tokens_B.tolist() == [count for _, count in by_hand]
    mean = sum(total for total, _ in by_hand) / sum(count for _, count in by_hand)
    assert float(out.loss.detach()) == pytest.approx(mean, abs=1e-5)


def test_a_batch_without_labels_has_no_loss(model, talk_batch):
    silent = {**talk_batch, "labels": torch.full_like(talk_batch["labels"], IGNORED)}
    out = model(**silent)
    assert float(out.loss.detach()) == 0.0
    assert out.loss_tokens_B.tolist() == [0, 0]


def test_the_loss_is_taken_in_single_precision(model, talk_batch):
    out = model.to(torch.bfloat16)(**talk_batch, full_logits=True)
    assert out.loss.dtype == out.loss_sum_B.dtype == torch.float32
    by_hand = loss_by_hand(out.logits, talk_batch["labels"])
    assert out.loss_sum_B.tolist() == pytest.approx([total for total, _ in by_hand], abs=1e-3)


@pytest.mark.parametrize("kept", [1, 3])
def test_kept_logits_are_the_last(model, talk_batch, kept):
    inputs = {name: value for name, value in talk_batch.items() if name != "labels"}
    whole, last = model(**inputs).logits, model(**inputs, logits_to_keep=kept).logits
    torch.testing.assert_close(last, whole[:, -kept:])


def test_routing_of_a_cached_step_is_that_of_its_new_tokens(model, processor, media):
    own = [(kind, media[kind]) for kind in ("image", "speech")]
    inputs = processor([TALK[:3], TALK[:1]], [own, own[:1]], to_answer=True)
    mask = inputs["attention_mask"]
    assert mask[1, 0] == 0
    first = model(**inputs, use_cache=True, output_routing=True)
    assert len(first.routing[0].expert_TK) == mask.sum()
    mask = torch.cat([mask, mask.new_ones(2, 1)], 1)
    step = model(
        input_ids=first.logits[:, -1:].argmax(-1),
        attention_mask=mask,
        past_key_values=first.past_key_values,
        output_routing=True,
    )
    assert len(step.routing[0].expert_TK) == 2


def test_routing_is_kept_only_where_it_is_asked_for(model, talk_batch):
    assert model(**talk_batch).routing is None
    found = model(**talk_batch, output_routing=True).routing
    assert isinstance(found[0], Routing)


def test_what_is_not_learned_is_marked_as_the_field_marks_it():
    assert IGNORED == torch.nn.CrossEntropyLoss().ignore_index == -100
