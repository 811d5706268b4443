import copy
from pathlib import Path

import pytest
import yaml

from uni_moe.config import load_params, parse_params
from uni_moe.errors import ConfigError

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
SENTENCES = {
    "kind": "sentences",
    "name": "words",
    "seed": 1,
    "count": 9,
    "answers": {"What?": ["a"]},
}
PACKING = {"row_positions": 512, "rows": 1, "on_too_long": "refuse"}
SHARDED = {"kind": "sharded", "name": "set", "path": "../set", "tasks": ["t"]}


def changed(path, value):
    data = copy.deepcopy(PARAMS)
    *way, last = path
    place = data
    for key in way:
        place = place[key]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["tunee"], {}, "tunee: unknown key; did you mean 'tune'?"),
        (["tune", "learning_rat"], 1.0, "did you mean 'learning_rate'?"),
        (["seed"], KeyError, "seed: missing"),
        (["seed"], "7", "seed: expected a whole number, found '7'"),
        (["seed"], True, "seed: expected a whole number, found True"),
        (["tune", "learning_rate"], "1e-4", "write 1.0e-4"),
        (["tune", "learning_rate"], -1.0, "must be above 0"),
        (["sources", 0, "kind"], "zip", "sources[0].kind: 'zip' is not one of"),
        (["sources"], PARAMS["sources"] * 2, "two sources have the name 'playground'"),
        (["sources"], [], "sources: at least one"),
        (["sources", 0, "name"], "größe", "sources.größe: a name may hold"),
        (["sources"], [SENTENCES], "sources.words.answers: at least two answers to 'What?'"),
        (["sources"], [SHARDED], "sources.set.path: '../set' is not inside `raw"),
        (["foundation", "image", "tiny"], None, "give either `pretrained` or `tiny`"),
        (["assembly", "slots"], ["base", "smell"], "'smell' is not one of"),
        (["tune", "lora"], None, "go together"),
        (["tune", "lora", "dropout"], 0.05, "must be 0 where lora.experts learns"),
        (["tune", "blend"], {"text": 0.0}, "weight above 0"),
        (["model", "experts_per_token"], 9, "more than there are assembly.slots"),
        (["align", "audio", "blend"], {"image": 1.0}, "align.audio.blend: image is no input"),
        (["tune", "blend"], {"txet": 1.0}, "tune.blend: txet is no input"),
        (["tune", "learns"], ["lora.atention"], "'lora.atention' is not one of"),
        (["tune", "learning_rate"], float("nan"), "tune.learning_rate: must be above 0"),
        (["prepare", "caption_prompts", "imge"], "Look.", "imge: no such modality"),
        (["foundation", "image", "tiny", "architecture", "widht"], 8, "architecture: expected"),
        (["foundation", "image", "tiny", "variation"], {}, "variation: expected a share for"),
        (["foundation", "audio", "tiny", "steps"], 0, "foundation.audio.tiny.steps: must be at"),
        (["model", "sparse_layers"], [99], "99 is no layer"),
        (["model", "video_frames"], 0, "model.video_frames: must be at least 1"),
        (["experts", "video"], KeyError, "experts.video: missing"),
        (["evaluate", "confidence"], 95.0, "evaluate.confidence: must lie between 0 and 1"),
        (["gate", "margin"], -5.0, "gate.margin: must lie in [0, 1]"),
        (["split", "validation_share"], -0.1, "split.validation_share: must lie in [0, 1)"),
        (["align", "image", "learns"], ["language"], "align.image.learns: language would be lost"),
        (["align", "image", "learns"], ["connector.audio"], "connector.image is what this phase"),
        (["experts", "audio", "learns"], ["connector.audio"], "lora.feed_forward is what this"),
        (["experts", "audio", "learns"], ["lora.attention"], "lora.attention would be lost"),
        (["tune", "learns"], ["lora.feed_forward"], "tune.learns: lora.feed_forward would be lost"),
        (["model", "audio_connector", "window_s"], 9, "window_s: 9 s, but the encoder's window is"),
        (["model", "speech_connector", "heads"], 5, "speech_connector.width: must be a multiple"),
        (
            ["foundation", "image", "tiny", "architecture", "patch_size"],
            7,
            "multiple of patch_size",
        ),
        (["foundation", "audio", "tiny", "architecture", "width"], 98, "must be a multiple of 4"),
        (["foundation", "language", "tiny", "heads"], 7, "hidden_size: must be a multiple"),
        (["foundation", "image", "tiny", "warmup_share"], 1.5, "warmup_share: must lie in [0, 1)"),
        (["platform"], 3, "platform: expected keys and values, found 3"),
        (["model", "sparse_layers"], "thirds", "model.sparse_layers: 'thirds' is not one of 'all'"),
        (["model", "sparse_layers"], 2, "model.sparse_layers: expected a list, found 2"),
        (["tune", "losses", "balance"], -1.0, "tune.losses.balance: must be at least 0"),
        (["tune", "losses", "target"], 1.0, "tune.losses.target: stands without expert_targets"),
        (["tune", "losses", "expert_targets"], {"image": [5]}, "are not all slots of 0 to 4"),
        (["tune", "losses", "expert_targets"], {"smell": [0]}, "smell: no such modality"),
        (["align", "image", "losses"], {}, "align.image.losses: unknown key"),
        (["tune", "learns"], ["router", "modality_adapters"], "assembly.modality_adapters: true"),
        (
            ["tune", "learns"],
            ["connector.speech", "projection.speech"],
            "projection.speech is a part of connector.speech",
        ),
        (
            ["experts", "speech", "learns"],
            ["lora.feed_forward", "projection.speech"],
            "connector.speech learns with experts; name the one that stays",
        ),
        (["tune", "batch_size"], None, "tune: give either `batch_size` or `batch_positions`"),
        (["tune", "batch_positions"], 4096, "tune: give either `batch_size` or `batch_positions`"),
        (["align", "image", "batch_size"], 0, "align.image.batch_size: must be at least 1"),
        (["tune", "sources"], {"playgruond": 2.0}, "did you mean 'playground'?"),
        (["tune", "sources"], {"playground": 0.0}, "tune.sources.playground: must be above 0"),
        (["tune", "sources"], {"playground": float("inf")}, "sources.playground: must be above 0"),
        (["tune", "sources"], {"playground": "twice"}, "expected a number, found 'twice'"),
        (["tune", "packing"], {"row_positions": 512}, "tune.packing.on_too_long: missing"),
        (["tune", "packing"], PACKING | {"row_positions": 0}, "row_positions: must be at least 1"),
        (["tune", "packing"], PACKING | {"rows": 0}, "tune.packing.rows: must be at least 1"),
        (["tune", "packing"], PACKING | {"on_too_long": "cut"}, "'cut' is not one of 'refuse'"),
    ],
)
def test_a_wrong_key_is_named_with_its_place(path, value, said):
    with pytest.raises(ConfigError) as error:
        parse_params(changed(path, value))
    assert said in str(error.value)


def test_all_problems_are_told_at_once():
    data = changed(["tunee"], {})
    data["seed"] = "x"
    del data["gate"]
    with pytest.raises(ConfigError) as error:
        parse_params(data)
    for said in ("3 problem(s)", "tunee", "seed", "gate: missing"):
        assert said in str(error.value)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="uni-moe new"):
        load_params(tmp_path / "params.yaml")


def test_a_file_that_is_not_yaml_names_the_line(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: [1\n")
    with pytest.raises(ConfigError, match="line 2"):
        load_params(tmp_path / "params.yaml")


def test_a_phase_may_weigh_sources_pack_rows_and_cut_steps_by_positions():
    data = changed(["tune", "packing"], PACKING)
    data["tune"] |= {"sources": {"playground": 2}, "batch_positions": 4096}
    del data["tune"]["batch_size"]
    tune = parse_params(data).tune
    assert (tune.batch_size, tune.batch_positions) == (None, 4096)
    assert tune.sources == {"playground": 2.0}
    assert (tune.packing.row_positions, tune.packing.rows) == (512, 1)
    plain = parse_params(changed(["tune", "packing"], None)).tune
    assert (plain.packing, plain.sources, plain.batch_positions) == (None, {}, None)


def test_a_section_is_plain_json():
    section = parse_params(PARAMS).section("align", "audio")
    assert section["learns"] == ["connector.audio"]
    assert section["blend"] == {"audio": 1.0}


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path):
    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text + "seed: 8\n")
    with pytest.raises(ConfigError, match="'seed' stands twice") as error:
        load_params(tmp_path / "params.yaml")
    assert f"line {len(text.splitlines()) + 1}" in str(error.value)
