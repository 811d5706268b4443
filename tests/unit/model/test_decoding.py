"""A step of generation in compiled code against the same step by transformers' layers."""

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, StaticCache

from uni_moe.model import decoding
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.native import native
from uni_moe.platform import take
from uni_moe.routes import Routes

pytestmark = pytest.mark.skipif(native() is None, reason="this machine has no C compiler")
COMPILED = Routes(experts="fused", elementwise="native")
PLAIN = Routes(experts="reference", elementwise="torch")
PROMPT, NEW, VOCABULARY = 9, 6, 53


def network(*, heads=4, key_heads=4, width=40, inner=27, dtype=torch.float32, sparse=(0,), **more):
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
        initializer_range=0.3,
        **more,
    )
    config = UniMoeConfig(text, sparse_layers=list(sparse), num_experts=4)
    return UniMoeForConditionalGeneration(config).eval().to(dtype)


def prompts(count):
    """Rows of different lengths, filled up at the left."""
    generator = torch.Generator().manual_seed(count)
    ids = torch.randint(3, VOCABULARY, (count, PROMPT), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(count):
        mask[row, : row % 4] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


@torch.no_grad()
def logits_of(model, routes, batch):
    """Return the logits of every new position, the tokens of one route given to both."""
    take(routes)
    out = model.generate(
        **batch,
        max_new_tokens=NEW,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.sequences, torch.stack(out.logits)


VARIANTS = {
    "as many keys": {},
    "shared keys": {"key_heads": 2},
    "wide": {"width": 96, "heads": 3, "key_heads": 1, "inner": 64},
    "all sparse": {"sparse": (0, 1)},
    "biased": {"attention_bias": True},
}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_compiled_step_returns_what_the_layers_return(variant, count):
    model = network(**VARIANTS[variant])
    tokens, logits = logits_of(model, COMPILED, prompts(count))
    by_layers, expected = logits_of(model, PLAIN, prompts(count))
    assert torch.equal(tokens, by_layers)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_half_precision_loses_no_more_than_its_own_rounding():
    exact, half = network(sparse=()), network(sparse=(), dtype=torch.bfloat16)
    exact.load_state_dict(half.state_dict())
    batch, cache = prompts(3), {}
    lost = {}
    for name, model, routes in (
        ("exact", exact, PLAIN),
        ("plain", half, PLAIN),
        ("compiled", half, COMPILED),
    ):
        take(routes)
        with torch.no_grad():
            cache[name] = model(**batch, use_cache=True).past_key_values
            again = torch.cat([batch["attention_mask"], torch.ones(3, 1, dtype=torch.long)], dim=1)
            found = model(
                torch.tensor([[5], [6], [7]]), attention_mask=again, past_key_values=cache[name]
            )
        lost[name] = found.logits.float()
    error = {name: (one - lost["exact"]).abs().max() for name, one in lost.items()}
    assert error["compiled"] <= 1.5 * error["plain"]


def test_the_number_of_threads_changes_no_bit():
    found, threads = [], torch.get_num_threads()
    try:
        for number in (1, 2):
            take(Routes(experts="fused", elementwise="native", threads=number))
            with torch.no_grad():
                model, batch = network(), prompts(5)
                cache = DynamicCache()
                for layer in (0, 1):
                    past = torch.randn(2, 5, 4, 4, 10, generator=torch.Generator().manual_seed(1))
                    cache.update(*past, layer)
                found.append(model(batch["input_ids"][:, -1:], past_key_values=cache).logits)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


PLACES = {
    "the decoder": lambda decoder: decoder,
    "a layer": lambda decoder: decoder.layers[1],
    "an attention": lambda decoder: decoder.layers[0].self_attn,
    "a norm": lambda decoder: decoder.layers[0].input_layernorm,
    "the last norm": lambda decoder: decoder.norm,
    "a feed-forward": lambda decoder: decoder.layers[1].mlp,
    "a mixture": lambda decoder: decoder.layers[0].mlp,
    "a projection": lambda decoder: decoder.layers[0].self_attn.q_proj,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_hook_is_called_at_every_token(place):
    model, calls = network(), []
    take(COMPILED)
    PLACES[place](model.language_model.model).register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model.generate(**prompts(2), max_new_tokens=NEW, do_sample=False)
    assert len(calls) == NEW


def test_arguments_that_say_nothing_and_inputs_that_are_views_are_taken():
    model, batch = network(), prompts(2)
    mask = torch.cat([batch["attention_mask"], torch.ones(2, 1, dtype=torch.long)], dim=1)
    embeds = model.get_input_embeddings()(torch.tensor([[4, 5], [6, 7]]))[:, 1:]
    found = []
    for routes in (COMPILED, PLAIN):
        take(routes)
        with torch.no_grad():
            cache = model(**batch, use_cache=True).past_key_values
            told = {"token_type_ids": torch.zeros(2, 1), "past_key_values": cache}
            found.append(model(inputs_embeds=embeds, attention_mask=mask, **told).logits)
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def _hooked(model):
    model.language_model.model.layers[0]._hf_hook = object()


@pytest.mark.parametrize(
    ("what", "is_taken"),
    [
        ("nothing special", True),
        ("hidden states", False),
        ("gradients", False),
        ("two positions", False),
        ("another cache", False),
        ("a mask of another shape", False),
        ("a moved layer", False),
        ("the plain route", False),
    ],
)
def test_only_what_a_step_can_do_is_done_by_it(what, is_taken):
    model = network()
    take(PLAIN if what == "the plain route" else COMPILED)
    cache = DynamicCache()
    for layer in (0, 1):
        cache.update(torch.zeros(2, 4, 3, 10), torch.zeros(2, 4, 3, 10), layer)
    if what == "another cache":
        cache = StaticCache(config=model.config.text_config, max_cache_len=8)
    if what == "a moved layer":
        _hooked(model)
    x = torch.zeros(2, 2 if what == "two positions" else 1, 40)
    mask = torch.ones(2, 1, 1, 4) if what == "a mask of another shape" else torch.ones(2, 4)
    asked = {"output_hidden_states": what == "hidden states", "return_dict": True}
    with torch.set_grad_enabled(what == "gradients"):
        found = decoding.is_step(model.language_model.model, x, mask, cache, asked)
    assert found is is_taken


def test_a_projection_with_an_adapter_or_a_hook_is_called_as_it_is():
    layer, x = torch.nn.Linear(8, 8, bias=False), torch.randn(2, 8)
    called = []
    layer.register_forward_hook(lambda *_: called.append(True))
    with torch.no_grad():
        torch.testing.assert_close(decoding.linear(layer, x), layer(x))
    assert len(called) == 2
