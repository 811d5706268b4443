"""What the README and `make bench` say of the questions is what there is."""

import re
from pathlib import Path

from benchmarks.__main__ import QUESTIONS

ROOT = Path(__file__).parents[3]


def section():
    _, _, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## How fast it is\n")
    return rest.partition("\n## ")[0]


def test_the_readme_lists_every_question_in_the_command_s_order():
    assert re.findall(r"^\| `(\w+)` \|", section(), re.M) == list(QUESTIONS)


def test_make_bench_asks_what_the_readme_says():
    (left_out,) = re.findall(r"`make bench` asks all but ([^.]*?), in a", section())
    (asked,) = re.findall(r"for question in ([\w ]+);", (ROOT / "Makefile").read_text())
    assert asked.split() == [one for one in QUESTIONS if f"`{one}`" not in left_out]
