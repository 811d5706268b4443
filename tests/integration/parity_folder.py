"""Writes a folder of the form of ../shared/parity with other sizes, recorded from our own model.

It proves nothing about the published model; it shows that the tests of parity hold no size.
"""

import json

import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, LlamaConfig, WhisperConfig

from uni_moe.checkpoints.published_export import _whole_whisper
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.connectors import AudioConnector
from uni_moe.model.encoders.beats import Beats, BeatsConfig, _thin
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.published.config import config_to_published
from uni_moe.model.published.plan import take_out

VOCABULARY, WIDTH, EXPERTS, LAYERS, PAD = 150, 36, 5, 3, 0
QUERIES, SIDE = 6, 42
IDS = {"image": -200, "audio": -300, "video": -400}
ROWS = (  # what stands in each row, and the chunks of each file of speech
    (("image",), ()),
    (("audio", "audio", "audio"), (1, 3, 1)),
    ((), ()),
    (("video", "audio"), (2,)),
    (("image", "video"), ()),
    (("audio", "image"), (1,)),
)


def random_weights(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.25)
    return model.eval()


def speech_model():
    config = UniMoeConfig(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=70,
            num_hidden_layers=LAYERS,
            num_attention_heads=6,
            num_key_value_heads=3,
            max_position_embeddings=300,
            rms_norm_eps=1e-5,
            rope_theta=5_000.0,
            pad_token_id=PAD,
        ),
        CLIPVisionConfig(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=4,
            num_attention_heads=3,
            image_size=SIDE,
            patch_size=14,
        ),
        WhisperConfig(
            vocab_size=90,
            d_model=32,
            encoder_layers=1,
            encoder_attention_heads=2,
            encoder_ffn_dim=50,
            pad_token_id=1,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=3,
        ),
        sparse_layers="all",
        num_experts=EXPERTS,
        experts_per_token=3,
        vision_select_layer=-3,
        speech_connector={
            "query_tokens": QUERIES,
            "layers": 3,
            "width": 32,
            "heads": 4,
            "intermediate_size": 44,
            "positions": 40,
            "window_s": 30,
        },
    )
    return random_weights(UniMoeForConditionalGeneration(config))


def batch_of_rows(generator):
    """Return the published batch of ROWS, and the same for our model."""
    rows, labels = [], []
    for kinds, _ in ROWS:
        text = torch.randint(3, VOCABULARY, (len(kinds) + 9,), generator=generator).tolist()
        for place, kind in enumerate(kinds):
            text.insert(2 + 2 * place, IDS[kind])
        rows.append(text)
        labels.append([-100] * 6 + text[6:])
    labels = [[x if x >= 0 else -100 for x in one] for one in labels]
    longest = max(map(len, rows))
    most = max(sum(chunks) for _, chunks in ROWS)
    mask = torch.zeros(len(ROWS), most, dtype=torch.long)
    for row, (_, chunks) in enumerate(ROWS):
        files = [i for i, count in enumerate(chunks, 1) for _ in range(count)]
        mask[row, : len(files)] = torch.tensor(files, dtype=torch.long)
    pictures = (len(ROWS), 3, SIDE, SIDE)

    def drawn(*shape):
        return torch.randn(shape, generator=generator)

    def stack(lists, fill):
        return torch.tensor([one + [fill] * (longest - len(one)) for one in lists])

    return {
        "input_ids": stack(rows, PAD),
        "labels": stack(labels, -100),
        "attention_mask": stack([[1] * len(one) for one in rows], 0),
        "images": drawn(*pictures),
        "videos": drawn(pictures[0], 8, *pictures[1:]),
        "image_mask": torch.tensor(["image" in kinds for kinds, _ in ROWS]),
        "video_mask": torch.tensor(["video" in kinds for kinds, _ in ROWS]),
        "input_features": drawn(len(ROWS), most, 80, 3000).half(),
        "features_mask": mask,
    }


def write_speech(folder, speech_batch, media_of):
    """Record our own model; `speech_batch` and `media_of` are those of the tests."""
    generator = torch.Generator().manual_seed(11)
    model = speech_model()
    batch = batch_of_rows(generator)
    folder.mkdir(parents=True)
    save_file(batch, folder / "batch.safetensors")
    ids, inputs, seen = speech_batch(model.config)
    out = model(**inputs, full_logits=True)
    out.loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    published = take_out(grads, "speech", "experts", EXPERTS)
    moe_input = torch.randn(2, 7, WIDTH, generator=generator)
    expected = {"logits": out.logits.detach(), "loss": out.loss.detach(), "moe_input": moe_input}
    greedy, rows = [], [1, 3, 5]
    with torch.no_grad():
        expected["moe_output"] = model.sparse_layers()[0](moe_input)
        for row in rows:
            own = torch.tensor([ids[row]])
            for _ in range(5):
                logits = model(input_ids=own, **media_of(row, seen, inputs)).logits[0, -1]
                own = torch.cat([own, logits.argmax().view(1, 1)], 1)
            greedy.append(own[0, -5:].tolist())
    save_file(expected, folder / "expected.safetensors")
    weights = take_out(model.state_dict(), "speech", "experts", EXPERTS)
    weights |= {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3)}
    save_file({n: t.contiguous() for n, t in weights.items()}, folder / "weights.safetensors")
    told = {
        "config": config_to_published(model.config, "experts"),
        "clip": model.config.vision_config.to_dict(),
        "whisper": _whole_whisper(model.config),
        "greedy_rows": rows,
        "greedy": greedy,
        "grad_norms": {name: float(grad.norm()) for name, grad in published.items()},
    }
    (folder / "reference.json").write_text(json.dumps(told))


@torch.no_grad()
def write_beats(folder):
    config = BeatsConfig(
        embed_dim=20,
        encoder_layers=2,
        encoder_embed_dim=30,
        encoder_ffn_embed_dim=50,
        encoder_attention_heads=3,
        num_buckets=16,
        max_distance=40,
        conv_pos=9,
        conv_pos_groups=5,
    )
    model = random_weights(Beats(config))
    fbank, padding = torch.randn(3, 130, 128), torch.zeros(3, 20_000, dtype=torch.bool)
    padding[0, 9_000:] = True
    reduced = _thin(_thin(padding, 130), (130 // 16) * (128 // 16))
    found = {
        "fbank": fbank,
        "features": model(fbank),
        "features_masked": model(fbank, padding),
        "sample_padding_mask": padding,
        "feature_padding_mask": reduced,
    }
    folder.mkdir(parents=True)
    save_file(found, folder / "io.safetensors")
    save_file(model.state_dict(), folder / "weights.safetensors")
    told = {key: value for key, value in config.to_dict().items() if isinstance(value, int)}
    (folder / "config.json").write_text(json.dumps({**told, "deep_norm": True}))


@torch.no_grad()
def write_aligner(folder):
    shape = {"query_tokens": 9, "layers": 3, "width": 30, "heads": 5, "intermediate_size": 44}
    model = random_weights(AudioConnector(26, 50, shape, standardize=False))
    features, hidden = torch.randn(2, 17, 26), []
    model.projector.register_forward_pre_hook(lambda _, x: hidden.append(x[0]))
    tokens = model(features)
    found = {"encoder_features": features, "hidden": hidden[0].clone(), "tokens": tokens}
    folder.mkdir(parents=True)
    save_file(found, folder / "io.safetensors")
    ours = {f"audio_connector.{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(take_out(ours, "audio", "experts", 0), folder / "weights.safetensors")
    told = {
        "query_tokens_size": 9,
        "hidden_size": 30,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "intermediate_size": 44,
        "encoder_hidden_size": 26,
        "llm_hidden_size": 50,
    }
    (folder / "config.json").write_text(json.dumps(told))
