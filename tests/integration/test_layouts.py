"""Two ranks on loopback learn what one process learns, whatever each of them meets in a step."""

import json

from benchmarks.__main__ import main
from benchmarks.drawn_layouts import SPREADS, draw, variety

COUNT, PATIENCE_S = 200, 120


def test_gradients_of_two_ranks_are_those_of_one_process(tmp_path):
    file = tmp_path / "answer.json"
    words = ("--count", str(COUNT), "--patience-s", str(PATIENCE_S), "--heap-gb", "0")
    assert main(["layouts", *words, "--json", str(file)]) == 0
    (case,) = json.loads(file.read_text())["layouts"]["cases"]
    assert all(row["reached"] for row in case["numbers"]), case["numbers"]
    spreads = [row for row in case["numbers"] if "layouts" in row]
    assert len(spreads) == len(SPREADS)
    assert len(case["numbers"]) == 2 * len(SPREADS)  # the norms, too
    assert sum(row["layouts"] for row in spreads) == COUNT
    # There is something to hold together.
    assert all(row["median_scale"] > 1e-3 for row in spreads)
    assert sum(row["with_experts_without_a_token"] for row in spreads) > COUNT // 20


def test_layouts_hold_what_is_known_to_part_ranks():
    found = variety(draw(seed) for seed in range(COUNT))
    assert len(found) == 4
    assert all(count > COUNT // 20 for count in found.values()), found
    spread = [layout for layout in map(draw, range(COUNT)) if layout.spread == "experts"]
    assert variety(spread)["a_rank_without_a_row"] > len(spread) // 20


def test_a_layout_follows_from_its_seed():
    assert draw(7) == draw(7)
    assert len({draw(seed).ranks for seed in range(50)}) > 40
