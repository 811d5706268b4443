"""The last value that a rule takes and the first that it refuses."""

import copy
from pathlib import Path

import pytest
import yaml

from uni_moe.config import parse_params
from uni_moe.errors import ConfigError

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())


def with_value(path, value):
    data = copy.deepcopy(PARAMS)
    place = data
    for name in path.split(".")[:-1]:
        place = place[name]
    place[path.rpartition(".")[2]] = value
    return parse_params(data)


@pytest.mark.parametrize(
    ("path", "taken", "refused"),
    [
        ("platform.threads", [1, 64], [0]),
        ("seed", [0], [-1]),
        ("tune.steps", [1], [0]),
        ("tune.learning_rate", [1.0e-9], [0.0]),
        ("tune.clip_norm", [1.0e-9], [0.0]),
        ("tune.weight_decay", [0.0], [-1.0e-9]),
        ("tune.warmup_share", [0.0, 0.99], [1.0, -0.01]),
        ("experts.image.lora.dropout", [0.0, 0.99], [1.0]),
        ("split.test_share", [0.0, 0.94], [0.95, 1.0]),  # beside 0.05 for validation
        ("evaluate.confidence", [0.01, 0.99], [0.0, 1.0]),
        ("evaluate.knock_out_items", [0], [-1]),
        ("evaluate.max_items", [1, None], [0]),
        ("gate.margin", [0.0, 1.0], [-0.01, 1.01]),
        ("gate.min_over_chance", [-1.0, 1.0], [-1.01, 1.01]),
        ("model.experts_per_token", [1, 5], [0, 6]),
        ("model.sparse_layers", [[0], [0, 3]], [[], [4], [-1], [1, 1]]),
        ("model.sparse_layers", ["all", "interval", "first_half", "second_half"], ["half", ""]),
        ("tune.losses.balance", [0.0, 9.0], [-1.0e-9]),
        ("assembly.modality_adapters", [True, False], [1, "yes"]),
    ],
)
def test_ranges_end_where_they_say(path, taken, refused):
    for value in taken:
        with_value(path, value)
    for value in refused:
        with pytest.raises(ConfigError, match=path.rpartition(".")[2]):
            with_value(path, value)
