import copy
from pathlib import Path

import pytest
import yaml

from uni_moe.config import load_params, parse_params
from uni_moe.errors import ConfigError

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())


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
        (["foundation", "image", "tiny"], None, "give either `pretrained` or `tiny`"),
        (["assembly", "slots"], ["base", "smell"], "'smell' is not one of"),
        (["tune", "lora"], None, "go together"),
        (["tune", "blend"], {"text": 0.0}, "weight above 0"),
        (["model", "experts_per_token"], 9, "more than there are assembly.slots"),
        (["align", "audio", "blend"], {"image": 1.0}, "align.audio.blend: image is no input"),
        (["platform"], 3, "platform: expected keys and values, found 3"),
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


def test_a_section_is_plain_json():
    section = parse_params(PARAMS).section("align", "audio")
    assert section["learns"] == ["connector.audio"]
    assert section["blend"] == {"audio": 1.0}
