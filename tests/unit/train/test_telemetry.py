"""What a step's report says in numbers, by hand."""

import json
import math

import pytest

from tests.unit.train.reports import report, routed, seen
from uni_moe.artifacts import Layout
from uni_moe.config import Guard, RouterAlarms, Telemetry
from uni_moe.runs import start_run
from uni_moe.train import telemetry as module
from uni_moe.train.work import Work

RULES = Telemetry(
    Guard("stop", "tell", most_skips=0, window_steps=16, spike_deviations=8.0),
    RouterAlarms(20, collapse_share=0.98, least_entropy=0.02, dead_share=0.01),
)
DRAWS = (
    seen(0, "a", tokens=4),
    seen(1, "b", tokens=2, modality="audio"),
    seen(2, "c", tokens=6, source="dogs"),
    seen(3, "d", tokens=0, source="dogs", modality="text"),
)


def told(*, work=None, peak=None, **changes):
    fields = {"losses": [8.0, 1.0, 3.0, 0.0], "positions": 100} | changes
    watch = module.Telemetry(RULES, work=work, peak_flops=peak)
    return watch.add(report(3, DRAWS, **fields))


def test_losses_by_modality_and_by_source_are_means_over_their_tokens():
    found = told().metrics
    assert found["loss/image"] == pytest.approx((8.0 + 3.0) / 10)
    assert found["loss/audio"] == pytest.approx(1.0 / 2)
    assert "loss/text" not in found
    assert found["loss_of_source/cats"] == pytest.approx(9.0 / 6)
    assert found["loss_of_source/dogs"] == pytest.approx(3.0 / 6)


def test_rates_are_those_of_the_step():
    found = told(took_s=0.5, waited_s=0.1, encoded_s=0.05, memory={"memory/bytes": 7.0}).metrics
    assert found["samples_per_s"] == pytest.approx(8)
    assert found["tokens_per_s"] == pytest.approx(24)
    assert found["positions_per_s"] == pytest.approx(200)
    assert found["wait_share"] == pytest.approx(0.2)
    assert found["encode_share"] == pytest.approx(0.1)
    assert (found["wait_s"], found["encode_s"], found["memory/bytes"]) == (0.1, 0.05, 7.0)


def test_filling_is_told_as_shares_of_what_all_layers_and_attention_compute():
    found = told(computed=125, attended=160).metrics
    assert found["filling_share"] == pytest.approx(0.2)
    assert found["filling_share_of_attention"] == pytest.approx(0.375)
    assert "filling_share" not in told().metrics


def test_utilization_is_told_where_the_peak_is_known():
    work = Work(flops_per_position=1000.0, flops_per_label=50.0)
    found = told(work=work, peak=1e6, took_s=0.5).metrics
    assert found["mfu"] == pytest.approx((100 * 1000 + 12 * 50) / 0.5 / 1e6)
    assert "mfu" not in told(work=work).metrics
    assert "mfu" not in told(work=work, peak=1e6, positions=0).metrics


def test_losses_beside_the_next_tokens_are_told():
    assert told(auxiliary={"balance": 1.25}).metrics["auxiliary/balance"] == 1.25


def test_every_layers_routing_is_told_in_numbers_and_by_modality():
    layers = {0: routed([60, 20, 20, 0], entropy=0.7), 2: routed([50, 50, 0, 0], kind="text")}
    found = told(routing=layers)
    assert found.metrics["router/0/busiest_share"] == pytest.approx(0.8)
    assert found.metrics["router/0/entropy_share"] == pytest.approx(0.7 / math.log(4))
    assert found.metrics["router/0/unvisited"] == 1
    assert found.metrics["router/2/unvisited"] == 2
    assert found.routing == {
        "0": {
            "image": {
                "tokens": 50,
                "visits": [60, 20, 20, 0],
                "share": [0.6, 0.2, 0.2, 0.0],
                "entropy": 0.7,
            }
        },
        "2": {
            "text": {
                "tokens": 50,
                "visits": [50, 50, 0, 0],
                "share": [0.5, 0.5, 0.0, 0.0],
                "entropy": 1.0,
            }
        },
    }


def test_a_step_without_a_number_names_its_draws_and_is_valid_json(tmp_path):
    found = told(loss=math.nan, losses=[8.0, math.nan, 3.0, 0.0])
    assert [alarm.kind for alarm in found.alarms] == ["not_finite"]
    assert found.alarms[0].draws[0].key == "cats/b"
    with start_run(Layout(tmp_path), "tune", {}) as run:
        module.write(run, 3, found)
    row = json.loads((run.folder / "metrics.jsonl").read_text(), parse_constant=_refused)
    assert "loss" not in row
    assert row["loss/image"] == pytest.approx(1.1)
    events = (run.folder / "events.jsonl").read_text().splitlines()
    (alarm,) = [json.loads(line, parse_constant=_refused) for line in events]
    assert alarm["event"] == "alarm"
    assert alarm["draws"][0] | {"loss": None} == {
        "slot": 1,
        "rank": 0,
        "key": "cats/b",
        "sample": "id of b",
        "modality": "audio",
        "source": "cats",
        "tokens": 2,
        "loss": None,
    }


def test_a_run_of_a_mixture_keeps_its_routing_beside_its_metrics(tmp_path):
    with start_run(Layout(tmp_path), "tune", {}) as run:
        module.write(run, 3, told(routing={0: routed([60, 20, 20, 0])}))
        module.write(run, 4, told())
    rows = [json.loads(line) for line in (run.folder / "routing.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3]
    assert rows[0]["layers"]["0"]["image"]["visits"] == [60, 20, 20, 0]


def _refused(name):
    raise AssertionError(f"{name} is no JSON")
