"""Connectors against their definitions."""

import math

import pytest
import torch

from uni_moe.model.connectors import AudioConnector, ImageConnector, SpeechConnector

SHAPE = {"query_tokens": 5, "layers": 3, "width": 16, "heads": 2, "intermediate_size": 24}


def built(kind, *, standardize=False, **sizes):
    torch.manual_seed(0)
    if kind is ImageConnector:
        return kind(8, 12, frames=sizes.get("frames"), standardize=standardize)
    return kind(sizes.get("width", 8), 12, SHAPE, standardize=standardize).eval()


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def standardized(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()


def test_a_picture_passes_two_linear_layers_and_the_exact_gelu():
    connector, x = built(ImageConnector), 3 * torch.randn(2, 4, 8)
    enter, leave = connector.enter, connector.leave
    by_hand = gelu(x @ enter.weight.T + enter.bias) @ leave.weight.T + leave.bias
    torch.testing.assert_close(connector(x), by_hand)


def test_a_frames_time_is_added_before_the_gelu_and_the_mean_taken_last():
    connector, x = built(ImageConnector, frames=3), torch.randn(2, 3, 4, 8)
    rows = []
    for frame in range(3):
        entered = connector.enter(x[:, frame]) + connector.frame_time[frame]
        rows.append(connector.leave(gelu(entered)))
    torch.testing.assert_close(connector(x), (rows[0] + rows[1] + rows[2]) / 3)


@pytest.mark.parametrize("kind", [ImageConnector, SpeechConnector, AudioConnector])
def test_rows_are_standardized_only_where_asked(kind):
    x = 4 * torch.randn(2, 6, 8) + 1
    plain, active = built(kind), built(kind, standardize=True)
    torch.testing.assert_close(active(x), plain(standardized(x)))
    assert (active(x) - plain(x)).abs().max() > 1e-4
    if kind is ImageConnector:
        film = x.view(1, 2, 6, 8)
        torch.testing.assert_close(active(film), plain(standardized(film)))


@pytest.mark.parametrize("kind", [SpeechConnector, AudioConnector])
@pytest.mark.parametrize("query", [0, 4])
def test_every_query_reads_every_row_of_its_own_medium(kind, query):
    connector, x = built(kind), torch.randn(3, 6, 8, requires_grad=True)
    with torch.no_grad():
        connector.query_tokens.normal_()
    connector(x)[1, query].square().sum().backward()
    assert (x.grad[1].abs().amax(-1) > 0).all()
    assert x.grad[0].abs().max() == x.grad[2].abs().max() == 0


@pytest.mark.parametrize("kind", [SpeechConnector, AudioConnector])
def test_a_medium_has_as_many_rows_as_there_are_queries(kind):
    assert built(kind)(torch.randn(3, 6, 8)).shape == (3, 5, 12)


def test_a_connector_as_wide_as_its_encoder_widens_nothing():
    same, wider = built(SpeechConnector, width=16), built(SpeechConnector, width=8)
    x = torch.randn(1, 4, 16)
    assert same.widen(x) is x
    assert wider.widen.weight.shape == (16, 8)


def test_audio_is_read_in_every_second_layer_from_the_first():
    layers = built(AudioConnector).qformer.encoder.layer
    assert [hasattr(layer, "crossattention") for layer in layers] == [True, False, True]


def test_small_audio_queries_are_brought_to_size():
    norm = built(AudioConnector).qformer.layernorm
    sized = norm(1e-3 * torch.randn(5, 16))
    torch.testing.assert_close(sized.var(-1, unbiased=False), torch.ones(5), atol=1e-4, rtol=0)


def test_speech_queries_are_told_apart_by_their_places_alone():
    connector = built(SpeechConnector)
    assert connector.query_tokens.abs().max() == 0
    rows = connector(torch.randn(1, 6, 8))[0]
    assert (rows[0] - rows[1]).abs().max() > 1e-3
    with torch.no_grad():
        connector.decoder.embed_positions.weight.zero_()
    same = connector(torch.randn(1, 6, 8))[0]
    torch.testing.assert_close(same, same[:1].expand_as(same))
