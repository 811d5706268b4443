"""Files of answers: whole or absent, one machine's questions side by side."""

import json

import pytest

from benchmarks.kept import add_to
from uni_moe.errors import ConfigError


def test_answers_of_other_questions_stay_in_the_file(tmp_path):
    file = tmp_path / "new" / "machine.json"
    case = {"title": "sizes", "rows": [{"what": "a", "ratios": [1.0] * 40}]}
    add_to(file, "layer", {"cases": [case]})
    add_to(file, "lora", {"cases": []})
    add_to(file, "lora", {"cases": [1]})
    assert json.loads(file.read_text()) == {"layer": {"cases": [case]}, "lora": {"cases": [1]}}
    assert max(map(len, file.read_text().splitlines())) < 300
    assert [one.name for one in file.parent.iterdir()] == ["machine.json"]


@pytest.mark.parametrize("text", ["[]", "no JSON"])
def test_a_file_of_something_else_is_left_alone(tmp_path, text):
    file = tmp_path / "notes.txt"
    file.write_text(text)
    with pytest.raises(ConfigError, match="holds no answers"):
        add_to(file, "layer", {})
    assert file.read_text() == text
