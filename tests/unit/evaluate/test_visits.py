import pytest
import torch
from tiny_model import medium, network

from uni_moe.data.media import decode_image
from uni_moe.evaluate.ask import Opened, ask
from uni_moe.evaluate.visits import visits


@pytest.fixture(scope="module")
def opened():
    model, processor = network()
    return Opened(model.eval(), processor)


@pytest.fixture(scope="module")
def said(opened):
    picture = decode_image(medium("image", 1))
    return ask(opened, "which?", [("image", picture)], max_new_tokens=4)


def test_a_token_visits_what_its_position_visits_while_the_text_grows(opened, said):
    told = visits(opened, said)
    for place in range(len(told.tokens)):
        ids = said.ids[None, : said.prompt_tokens + place + 1]
        with torch.no_grad():
            out = opened.model(ids, features=said.features, output_routing=True)
        for column, layer in enumerate(told.layers):
            routing = out.routing[layer]
            assert told.experts[place][column] == routing.expert_TK[-1].tolist()
            assert told.shares[place][column] == pytest.approx(
                routing.weight_TK[-1].tolist(), abs=1e-4
            )


def test_the_prompts_visits_are_counted_by_modality(opened, said):
    told = visits(opened, said)
    slots = int((said.ids == opened.model.config.slot_id("image")).sum())
    assert told.positions == {"image": slots, "text": said.prompt_tokens - slots}
    for by_layer in told.prompt.values():
        assert len(by_layer) == len(told.layers)
        assert all(sum(shares) == pytest.approx(1, abs=1e-3) for shares in by_layer)


def test_an_answer_holds_as_many_tokens_as_were_generated(opened, said):
    told = visits(opened, said)
    assert len(told.tokens) == len(said.ids) - said.prompt_tokens <= 4
    assert all(len(token) == opened.model.config.experts_per_token for token in told.experts[0])
