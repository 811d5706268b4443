"""The real road by a served schedule: a worker takes it once, and the next tick finds nothing."""

import pytest
import yaml

from flows.deployments import NOTHING
from tests.integration.standing import standing, until
from tests.integration.test_smallest_road import smallest_data
from uni_moe.artifacts import Layout
from uni_moe.registry import read
from uni_moe.registry.cards import all_runs
from uni_moe.workspace import make_workspace

pytestmark = pytest.mark.operate
NOTHING_S = 30
ROAD_S = 600
BROKEN = ("FAILED", "CRASHED")
UP = ("-m", "uni_moe", "up", "--port", "{port}", "--no-dashboard")


def test_a_tick_takes_a_worker_through_the_whole_road_and_the_next_one_finds_nothing(tmp_path):
    layout = Layout(tmp_path / "home")
    make_workspace(layout.root, "smoke")
    layout.params.write_text(yaml.safe_dump(smallest_data()), encoding="utf-8")
    (layout.root / "schedule.yaml").write_text("cron: '* * * * *'\n", encoding="utf-8")
    with standing(layout.root, words=UP) as up:
        assert len(until(lambda: up.runs("SCHEDULED"), "scheduled runs")) > 1
        until(lambda: len(up.runs("COMPLETED")) > 1 or up.runs(*BROKEN), "two ticks", ROAD_S)
        assert not up.runs(*BROKEN)
        first, second, *_ = up.runs("COMPLETED")
    assert first["state"]["message"] != NOTHING
    assert second["state"]["message"] == NOTHING
    assert second["total_run_time"] < NOTHING_S
    assert len(read.models(layout)) == 1
    assert len(read.verdicts(layout)) == 1
    stages = [record["stage"] for _, record in all_runs(layout) if record["status"] == "done"]
    assert len(stages) == len(set(stages))
    assert {"ingest", "align@image", "experts@speech", "tune", "evaluate"} <= set(stages)
    for name in ("registration", "verdict"):
        assert len(list(layout.runs.glob(f"*/{name}.json"))) == 1
