"""Packed rows: what a conversation learns does not depend on what stands beside it in a row."""

import copy

import pytest
import torch

from tests.unit.model.conftest import LAYOUTS, conversation
from uni_moe.errors import ConfigError, DataError
from uni_moe.model import segments
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.prompt import IGNORED, Encoded
from uni_moe.model.segments import FILLING, ROUTE, lay_out, whole_mask
from uni_moe.platform import take
from uni_moe.routes import Routes

ANSWERS = ("a red cat", "red", "a cat a cat a cat a cat a cat", "it is", "cat")
ROWS = ((0, 2), (1, 3, 4))  # which conversations stand in which row
AUX = {
    "balance_coefficient": 0.1,
    "target_coefficient": 0.1,
    "divergence_coefficient": 0.1,
    "expert_targets": {"image": [0], "speech": [1, 2]},
}


def inputs(processor, media, chosen):
    """Return the conversations `chosen` of LAYOUTS as a batch of one row each."""
    return processor(
        [conversation(*LAYOUTS[i], answer=ANSWERS[i]) for i in chosen],
        [[(kind, media[kind]) for kind in LAYOUTS[i]] for i in chosen],
    )


def packed(processor, media, rows):
    """Return the same conversations, those of a row one behind the other."""
    flat = [i for row in rows for i in row]
    batch = dict(inputs(processor, media, flat))
    mask = batch.pop("attention_mask")
    encoded = {
        i: Encoded(*(batch[name][at, mask[at] == 1].tolist() for name in ("input_ids", "labels")))
        for at, i in enumerate(flat)
    }
    return batch | processor.pack([[encoded[i] for i in row] for row in rows])


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def by_attention(model, way):
    model.language_model.config._attn_implementation = way
    return model


WAYS = [(ROUTE, "fused"), (ROUTE, "plain"), ("eager", "fused"), ("sdpa", "fused")]


@pytest.mark.parametrize(("way", "route"), WAYS)
@pytest.mark.parametrize("rows", [ROWS, ((0, 1, 2, 3, 4),), ((4,), (3, 2), (1,), (0,))])
def test_packing_changes_no_loss_and_no_gradient(model, processor, media, way, route, rows):
    take(Routes(attention=route))
    model.train()
    flat = [i for row in rows for i in row]
    expected = model(**inputs(processor, media, flat))
    by_hand = gradients(model, expected.loss)
    found = by_attention(model, way)(**packed(processor, media, rows))
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.loss_sum_B, expected.loss_sum_B, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.loss_tokens_B, expected.loss_tokens_B)
    grads = gradients(model, found.loss)
    assert grads.keys() == by_hand.keys()
    for name, grad in by_hand.items():
        torch.testing.assert_close(grads[name], grad, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("way", [ROUTE, "eager"])
def test_packing_lets_no_conversation_see_another(model, processor, media, way):
    by_attention(model, way)
    batch = packed(processor, media, ROWS)
    before = model(**batch).loss_sum_B
    for changed in range(5):
        ids = batch["input_ids"].clone()
        here = (batch["segment_BT"] == changed) & (ids < processor.vocab_size)
        ids[here] = (ids[here] + 7) % processor.vocab_size
        after = model(**batch | {"input_ids": ids}).loss_sum_B
        others = torch.arange(5) != changed
        torch.testing.assert_close(after[others], before[others], atol=1e-6, rtol=0)
        assert not torch.equal(after[changed], before[changed])


def test_packing_sends_no_gradient_to_another_conversation(model, processor, media):
    batch = packed(processor, media, ROWS)
    embeds = model._embed(batch["input_ids"], media_features(model, batch)).detach()
    for own in range(5):
        leaf = embeds.clone().requires_grad_()
        out = model(inputs_embeds=leaf, labels=batch["labels"], segment_BT=batch["segment_BT"])
        out.loss_sum_B[own].backward()
        touched = leaf.grad.abs().sum(-1) > 0
        assert touched.any()
        assert not touched[batch["segment_BT"] != own].any()


def media_features(model, batch):
    names = {"image": "pixel_values", "video": "video_pixel_values", "speech": "speech_mel"}
    found = {kind: model.encode(kind, batch[name]) for kind, name in names.items()}
    return found | {"audio": model.encode("audio", batch["audio_fbank"], batch["audio_padding"])}


def test_packing_leaves_filling_out_of_the_routing(model, processor, media):
    batch = packed(processor, media, ROWS)
    assert (batch["segment_BT"] == FILLING).any()
    routing = model(**batch, output_routing=True).routing[0]
    assert routing.load_E.sum() == 2 * (batch["segment_BT"] != FILLING).sum()


def test_packing_changes_no_loss_beside_the_next_tokens(config, processor, media):
    torch.manual_seed(0)
    model = UniMoeForConditionalGeneration(UniMoeConfig.from_dict({**config.to_dict(), **AUX}))
    flat = [i for row in ROWS for i in row]
    expected = model(**inputs(processor, media, flat))
    found = model(**packed(processor, media, ROWS))
    assert found.aux_losses.keys() == {"balance", "target", "divergence"}
    for name, loss in expected.aux_losses.items():
        torch.testing.assert_close(found.aux_losses[name], loss, atol=1e-5, rtol=1e-5, msg=name)
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-5, rtol=1e-5)


def test_packing_a_first_label_of_the_next_conversation_is_not_predicted(model):
    ids = torch.tensor([[1, 5, 6, 7, 8, 9]])
    segment = torch.tensor([[0, 0, 0, 1, 1, 1]])
    out = model(input_ids=ids, labels=ids, segment_BT=segment)
    assert out.loss_tokens_B.tolist() == [2, 2]
    alone = [model(input_ids=i, labels=i).loss_sum_B[0] for i in (ids[:, :3], ids[:, 3:])]
    torch.testing.assert_close(out.loss_sum_B, torch.stack(alone))


def test_packing_counts_positions_anew(model):
    model.config.text_config.max_position_embeddings = 3
    ids = torch.tensor([[1, 5, 6, 7, 8, 9]])
    model(input_ids=ids, segment_BT=torch.tensor([[0, 0, 0, 1, 1, 1]]))
    with pytest.raises(DataError, match="4 positions, the language model has 3"):
        model(input_ids=ids, segment_BT=torch.tensor([[0, 0, 1, 1, 1, 1]]))


def test_packing_and_recomputed_activations_agree(model, processor, media):
    batch, found = packed(processor, media, ROWS), []
    for recompute in (False, True):
        model.train()
        if recompute:
            model.gradient_checkpointing_enable()
        found.append(gradients(model, model(**batch).loss))
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, msg=name)


def test_packing_works_with_fewer_heads_of_keys(config, processor, media):
    data = copy.deepcopy(config.to_dict())
    data["text_config"]["num_key_value_heads"] = 2
    torch.manual_seed(0)
    model = UniMoeForConditionalGeneration(UniMoeConfig.from_dict(data))
    flat = [i for row in ROWS for i in row]
    expected = model(**inputs(processor, media, flat)).loss_sum_B
    found = model(**packed(processor, media, ROWS)).loss_sum_B
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_packing_works_in_half_precision(model, processor, media):
    batch = packed(processor, media, ROWS)
    expected = model(**batch).loss
    for way in (ROUTE, "eager", "sdpa"):
        loss = by_attention(model.to(torch.bfloat16), way)(**batch).loss
        loss.backward()
        torch.testing.assert_close(loss.detach(), expected.detach(), atol=0.05, rtol=0)


def test_packing_is_refused_by_an_attention_that_takes_no_mask(model):
    ids = torch.tensor([[1, 5]])
    with pytest.raises(ConfigError, match="cannot be read by the attention 'flex_attention'"):
        by_attention(model, "flex_attention")(input_ids=ids, segment_BT=torch.tensor([[0, 1]]))


def test_packing_agrees_with_what_transformers_reads_off_positions(model):
    """Without a mask, LLaMA takes positions that start anew for packed sequences."""
    ids = torch.tensor([[1, 5, 6, 7, 8, 9]])
    segment = torch.tensor([[0, 0, 0, 0, 1, 1]])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1]])
    by_hand = by_attention(model, "sdpa").language_model(
        input_ids=ids, position_ids=positions, use_cache=False
    )
    found = by_attention(model, ROUTE)(input_ids=ids, segment_BT=segment)
    torch.testing.assert_close(found.logits, by_hand.logits)


def test_packing_lays_every_position_in_one_place():
    generator = torch.Generator().manual_seed(0)
    for rows in (1, 3):
        length_B = torch.randint(1, 9, (rows, 30), generator=generator)
        segment = torch.stack(
            [
                torch.arange(30).repeat_interleave(one)[:60] + 100 * b
                for b, one in enumerate(length_B)
            ]
        )
        sequences, laid_out = lay_out(segment)
        flat = torch.arange(segment.numel())
        assert torch.equal(laid_out.spread_R[laid_out.back_P], flat)
        ends = (segment.diff(dim=1) != 0).nonzero()
        assert len(ends) + rows == sum(count for count, _ in laid_out.groups)
        for row in range(rows):  # positions by hand
            seen = {}
            for at, one in enumerate(segment[row].tolist()):
                assert int(laid_out.position_BT[row, at]) == seen.get(one, 0)
                seen[one] = seen.get(one, 0) + 1
        assert sequences.longest == int(segment.flatten().bincount().max())


def test_packing_counts_no_filling_as_a_sequence():
    ids = torch.tensor([[0] * 3 + [1] * 2 + [FILLING] * 195])
    sequences, _ = lay_out(ids)
    assert sequences.longest == 3


def test_packing_groups_segments_of_like_lengths():
    sizes = segments._group_sizes([500, 490, 100, 99, 20, 20, 20, 20])
    assert sum(sizes) == 8
    assert sizes[:2] == [1, 1] or sizes[0] == 2
    lengths = iter([500, 490, 100, 99, 20, 20, 20, 20])
    for size in sizes:
        group = [next(lengths) for _ in range(size)]
        assert sum(group[0] ** 2 - one**2 for one in group) <= segments._PAYS


def test_packing_mask_says_what_segments_say():
    segment = torch.tensor([[0, 0, 1, FILLING]])
    seen = whole_mask(segment, torch.float32)[0, 0] == 0
    assert seen.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_connectors_without_media_still_have_gradients_in_a_packing_of_any_media(
    model, processor, media
):
    """Every layout of media gives gradients of the same parameters, and idle ones are zero."""
    model.train()
    found = {}
    for chosen in range(len(LAYOUTS)):
        loss = model(**packed(processor, media, ((chosen,),))).loss
        found[LAYOUTS[chosen]] = gradients(model, loss)
    names = {name for name in found[()] if "tower" not in name}
    for grads in found.values():
        assert {name for name in grads if "tower" not in name} == names
    assert {n for n, _ in model.named_parameters() if "connector" in n} <= names
    idle = {n: g for n, g in found[()].items() if "connector" in n}
    assert all(float(grad.abs().max()) == 0.0 for grad in idle.values())
    busy = [g for n, g in found[("image",)].items() if "image_connector" in n and "time" not in n]
    assert all(float(grad.abs().max()) > 0.0 for grad in busy)


def test_idle_connectors_change_no_loss_and_frozen_ones_do_not_run(model, processor, media):
    calls = []
    for name in ("image_connector", "audio_connector", "speech_connector"):
        hook = getattr(model, name).register_forward_hook(lambda *_, name=name: calls.append(name))
        assert hook
    batch = packed(processor, media, ((3,),))
    expected = model.eval()(**batch).loss
    assert calls == []
    model.train()
    torch.testing.assert_close(model(**batch).loss, expected, atol=0, rtol=0)
    assert calls == ["image_connector"] * 2 + ["audio_connector", "speech_connector"]
    calls.clear()
    model.image_connector.requires_grad_(requires_grad=False)
    model.speech_connector.requires_grad_(requires_grad=False)
    model(**batch)
    assert calls == ["audio_connector"]
    calls.clear()
    with torch.no_grad():
        model(**batch)
    assert calls == []
    model.runs_every_connector = True  # processes hold parts of weights
    for training in (True, False):
        model.train(training)
        calls.clear()
        with torch.no_grad():
            torch.testing.assert_close(model(**batch).loss, expected, atol=0, rtol=0)
        assert calls == ["image_connector"] * 2 + ["audio_connector", "speech_connector"]


def test_a_packing_without_any_conversation_gives_zero_gradients_everywhere(
    config, processor, media
):
    torch.manual_seed(0)
    model = UniMoeForConditionalGeneration(UniMoeConfig.from_dict({**config.to_dict(), **AUX}))
    model.train()
    names = gradients(model, model(**packed(processor, media, ROWS)).loss).keys()
    empty = {
        "input_ids": torch.tensor([[1]]),
        "labels": torch.tensor([[IGNORED]]),
        "segment_BT": torch.tensor([[FILLING]]),
    }
    out = model(**empty, features={})
    assert out.loss_sum_B.shape == out.loss_tokens_B.shape == (0,)
    grads = gradients(model, out.loss)
    assert grads.keys() == names
    assert all(float(grad.abs().max()) == 0.0 for grad in grads.values())
