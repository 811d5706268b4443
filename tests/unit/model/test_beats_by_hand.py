"""BEATs against its description, written out slowly: one head, one position, one pair at a time."""

import math

import pytest
import torch

from uni_moe.model.encoders.beats import Beats, BeatsConfig

HEADS, WIDTH, LAYERS, BUCKETS, FAR = 2, 8, 2, 8, 6


@pytest.fixture
def beats():
    torch.manual_seed(0)
    config = BeatsConfig(
        input_patch_size=4,
        embed_dim=6,
        encoder_layers=LAYERS,
        encoder_embed_dim=WIDTH,
        encoder_ffn_embed_dim=12,
        encoder_attention_heads=HEADS,
        num_buckets=BUCKETS,
        max_distance=FAR,
        conv_pos=4,
        conv_pos_groups=2,
        mel_bins=8,
    )
    model = Beats(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


def norm(x, weight, bias):
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * weight + bias


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def linear(state, name, x):
    return state[f"{name}.weight"] @ x + state[f"{name}.bias"]


def normed(state, name, x):
    return norm(x, state[f"{name}.weight"], state[f"{name}.bias"])


def patches(state, fbank):
    """Return the patches, time first, each a vector of the encoder's width."""
    kernel = state["patch_embedding.weight"][:, 0]
    found = []
    for top in range(0, fbank.shape[0] - 3, 4):
        for left in range(0, fbank.shape[1] - 3, 4):
            seen = fbank[top : top + 4, left : left + 4]
            cut = torch.stack([(one * seen).sum() for one in kernel])
            found.append(linear(state, "post_extract_proj", normed(state, "layer_norm", cut)))
    return found


def with_places(state, x):
    """Add the grouped convolution over four neighbours: two before, itself, one behind."""
    v, g = state["encoder.pos_conv.0.weight_v"], state["encoder.pos_conv.0.weight_g"]
    weight = torch.stack(
        [g[0, 0, k] * v[:, :, k] / v[:, :, k].square().sum().sqrt() for k in range(4)], -1
    )
    out = []
    for place in range(len(x)):
        y = state["encoder.pos_conv.0.bias"].clone()
        for channel in range(WIDTH):
            first = 4 * (channel // 4)  # the channels of its group
            for k in range(4):
                near = place + k - 2
                if 0 <= near < len(x):
                    y[channel] += weight[channel, :, k] @ x[near][first : first + 4]
        out.append(normed(state, "encoder.layer_norm", x[place] + gelu(y)))
    return out


def bucket(distance):
    half, near = BUCKETS // 2, BUCKETS // 4
    size = abs(distance)
    if size >= near:
        size = near + int(math.log(size / near) / math.log(FAR / near) * (half - near))
    return (half if distance > 0 else 0) + min(size, half - 1)


def attended(state, layer, x, padded):
    name, d = f"encoder.layers.{layer}.self_attn", WIDTH // HEADS
    table = state["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    q, k, v = ([linear(state, f"{name}.{p}_proj", one) for one in x] for p in "qkv")
    out = []
    for i in range(len(x)):
        heads = []
        for h in range(HEADS):
            own = slice(h * d, (h + 1) * d)
            grep = linear(state, f"{name}.grep_linear", q[i][own])
            a, b = torch.sigmoid(grep[:4].sum()), torch.sigmoid(grep[4:].sum())
            gate = a * (b * state[f"{name}.grep_a"][0, h, 0, 0] - 1) + 2
            weights = [
                0.0
                if padded[j]
                else math.exp(q[i][own] @ k[j][own] / math.sqrt(d) + gate * table[bucket(j - i), h])
                for j in range(len(x))
            ]
            heads.append(sum(w * one[own] for w, one in zip(weights, v, strict=True)))
            heads[-1] = heads[-1] / sum(weights)
        out.append(linear(state, f"{name}.out_proj", torch.cat(heads)))
    return out


def by_hand(model, fbank, padded):
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    alpha = (2 * LAYERS) ** 0.25
    x = [one * (not p) for one, p in zip(patches(state, fbank), padded, strict=True)]
    x = with_places(state, x)
    for layer in range(LAYERS):
        name = f"encoder.layers.{layer}"
        added = attended(state, layer, x, padded)
        x = [
            normed(state, f"{name}.self_attn_layer_norm", alpha * one + more)
            for one, more in zip(x, added, strict=True)
        ]
        fed = [linear(state, f"{name}.fc2", gelu(linear(state, f"{name}.fc1", one))) for one in x]
        x = [
            normed(state, f"{name}.final_layer_norm", alpha * one + more)
            for one, more in zip(x, fed, strict=True)
        ]
    return torch.stack(x)


def test_the_encoder_equals_its_description(beats):
    fbank = torch.randn(2, 21, 8)  # the odd frame is left out
    found = beats(fbank).detach()
    for one, rows in zip(fbank, found, strict=True):
        torch.testing.assert_close(rows, by_hand(beats, one, [False] * 10), atol=1e-4, rtol=1e-4)


def test_padding_is_reduced_twice_and_neither_read_nor_heard(beats):
    """Three samples make a frame and frames 2p and 2p + 1 stand for patch p; four are left over."""
    fbank = torch.randn(1, 20, 8)
    samples = torch.zeros(1, 64, dtype=torch.bool)
    samples[:, 43:] = True  # of frame 14 one sample is heard
    padded = [p >= 8 for p in range(10)]
    expected = by_hand(beats, fbank[0], padded)
    found = beats(fbank, samples)[0].detach()
    torch.testing.assert_close(found[:8], expected[:8], atol=1e-4, rtol=1e-4)


def test_a_fresh_encoder_starts_small_and_its_places_normed():
    torch.manual_seed(0)
    sizes = {"embed_dim": 64, "encoder_embed_dim": 64, "encoder_ffn_embed_dim": 128}
    sizes |= {"encoder_layers": 1, "encoder_attention_heads": 4}
    model = Beats(BeatsConfig(**sizes))
    layer = model.encoder.layers[0]
    for module in (model.post_extract_proj, layer.fc1, layer.self_attn.q_proj):
        assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not module.bias.any()
    places = model.encoder.pos_conv[0]
    expected = math.sqrt(4 / (128 * 64))
    assert places.weight_v.std().item() == pytest.approx(expected, rel=0.1)
    torch.testing.assert_close(places.weight_g, places.weight_v.norm(dim=(0, 1), keepdim=True))
    assert (layer.self_attn.grep_a == 1).all()
