"""Experts: loads, the dead, origins; live, removed, broken and hostile states."""

import json
import math
import shutil

import pytest

from dashboard import routing as pure
from dashboard.sources import routing as source
from dashboard.sources.experts import surgery
from dashboard.sources.workspace import WORKSPACE
from tests.dashboard.hostile import MARKDOWN
from tests.dashboard.judged_workspace import LOAD, TOLD, routing, step, version
from tests.dashboard.pages import opened, said
from uni_moe.artifacts import Layout, write_json
from uni_moe.registry import read
from uni_moe.train.alarms import LayerFacts

RUN = "20260101T000000-tune-abcdef"


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    root = tmp_path_factory.mktemp("judged")
    version(root, "one", 8)
    return root


def test_a_dead_expert_is_named_with_its_layer_and_modalities(judged, monkeypatch):
    app = opened(monkeypatch, judged, "experts", version=1)
    assert not app.exception
    assert "1 expert is dead" in said(app)
    assert r"layer 2, expert 2 video \(0\.03%, by tokens of image, audio\)" in said(app)
    assert "less than 0.3 % of a layer's visits, 1.0 % of an even load" in said(app)


def test_a_healthy_model_says_that_no_expert_is_dead(tmp_path, monkeypatch):
    version(tmp_path, "one", 8, load={"image": {"0": [0.5, 0.3, 0.2]}})
    app = opened(monkeypatch, tmp_path, "experts")
    assert "No expert is dead among the judged items" in said(app)
    assert "receipt beside the weights is not here" in said(app)
    assert "run that trained this model is not here" in said(app)


def test_loads_that_are_no_number_are_told(tmp_path, monkeypatch):
    version(tmp_path, "one", 8, load={"image": {"0": [math.nan, 0.3, math.inf]}})
    app = opened(monkeypatch, tmp_path, "experts")
    assert not app.exception
    assert "2 loads are no number" in said(app)
    assert "No expert is dead" not in said(app)


def test_a_version_that_is_not_there_is_told(judged, monkeypatch):
    app = opened(monkeypatch, judged, "experts", version=99)
    assert not app.exception
    assert "There is no version 99" in said(app)


@pytest.mark.parametrize("name", ["../../etc/passwd", "nothing", "<script>"])
def test_a_run_that_is_not_there_is_told(judged, monkeypatch, name):
    app = opened(monkeypatch, judged, "experts", run=name)
    assert not app.exception
    assert "no run of this name" in said(app)


def test_a_training_shows_its_last_steps_and_its_course(tmp_path, monkeypatch):
    routing(Layout(tmp_path), RUN, [step(n) for n in range(1, 60)])
    app = opened(monkeypatch, tmp_path, "experts", run=RUN)
    assert not app.exception
    assert "Load of layer 0 over time" in said(app)
    assert "in steps 40 to 59" in said(app)
    assert "layer 0, expert 2" in said(app)


def test_routing_that_housekeeping_removed_is_told(tmp_path, monkeypatch):
    folder = routing(Layout(tmp_path), RUN, None)
    write_json(folder / "removed.json", {"files": {"routing.jsonl": {"size_bytes": 7}}})
    app = opened(monkeypatch, tmp_path, "experts", run=RUN)
    assert not app.exception
    assert "Housekeeping removed the routing" in said(app)


def test_a_run_without_routing_says_which_runs_have_one(tmp_path, monkeypatch):
    routing(Layout(tmp_path), RUN, None)
    assert "keeps no routing" in said(opened(monkeypatch, tmp_path, "experts", run=RUN))


def test_broken_lines_and_numbers_of_routing_break_nothing(tmp_path, monkeypatch):
    broken = [{"step": "x"}, {"step": 3, "layers": {"0": {"image": {"tokens": None}}}}]
    lines = [*broken, step(4, entropy=math.nan), step(5, visits=(math.nan, 1, 1)), step(6)]
    routing(Layout(tmp_path), RUN, lines)
    app = opened(monkeypatch, tmp_path, "experts", run=RUN)
    assert not app.exception
    assert "no number" in said(app)


def test_a_long_record_is_read_here_and_there_and_its_end_is_whole(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    monkeypatch.setattr(source, "MOST_BYTES", 40_000)
    routing(Layout(tmp_path), RUN, [step(n) for n in range(1, 5000)])
    kept = source.read_on(RUN, source.Kept())
    assert kept.is_part
    assert len(kept.steps) <= source.KEPT
    assert kept.steps[0].step < 10
    assert [one.step for one in kept.last] == list(range(4980, 5000))


def test_a_runs_experts_have_the_names_of_the_version_that_came_of_it(tmp_path, monkeypatch):
    layout, known = version(tmp_path, "one", 8)
    receipt = {"operation": {"name": "upcycle"}, "slots": ["base", "image", "video"]}
    write_json(layout.store / known.model / "model" / "receipt.json", receipt)
    folder = routing(layout, RUN, [step(n) for n in range(1, 30)])
    record = json.loads((folder / "run.json").read_text())
    write_json(folder / "run.json", {**record, "artifacts": {"artifacts/model": known.model}})
    app = opened(monkeypatch, tmp_path, "experts", run=RUN)
    assert "layer 0, expert 2 video" in said(app)
    app = opened(monkeypatch, tmp_path, "experts", version=1)
    assert "What was done, in order: upcycle." in said(app)


def test_a_run_at_work_shows_what_it_has_and_its_alarms(tmp_path, monkeypatch):
    folder = routing(Layout(tmp_path), RUN, [step(1)], status="running")
    alarm = {"event": "alarm", "kind": "dead_expert", "step": 1, "text": "layer 0: <b>dead</b>"}
    (folder / "events.jsonl").write_text(json.dumps(alarm) + "\n")
    app = opened(monkeypatch, tmp_path, "experts", run=RUN)
    assert not app.exception
    assert "in steps 1 to 1" in said(app)
    assert r"layer 0\: \<b\>dead" in said(app)


def test_what_comes_later_is_read_alone(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    folder = routing(Layout(tmp_path), RUN, [step(1)])
    kept = source.read_on(RUN, source.Kept())
    with (folder / "routing.jsonl").open("a") as file:
        file.write(json.dumps(step(2)) + "\n" + '{"step": 3, "lay')
    kept = source.read_on(RUN, kept)
    assert [one.step for one in kept.steps] == [1, 2]
    for number in range(3, 5):
        with (folder / "routing.jsonl").open("a") as file:
            file.write("\n" + json.dumps(step(number)) + "\n")
        kept = source.read_on(RUN, kept)
    assert [one.step for one in kept.steps] == [1, 2, 3, 4]


def test_a_run_that_died_is_said_to_be_dead_and_takes_no_names_of_today(tmp_path, monkeypatch):
    layout = Layout(tmp_path)
    routing(layout, RUN, [step(1)], status="running")
    layout.assembled.mkdir(parents=True)
    write_json(layout.assembled / "receipt.json", {"slots": ["base", "of", "today"]})
    app = opened(monkeypatch, tmp_path, "experts", run=RUN)
    assert "tune, died, begun" in said(app)
    assert "today" not in said(app)


def test_steps_that_a_resumed_run_took_again_count_once(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    routing(Layout(tmp_path), RUN, [step(n) for n in (1, 2, 3, 4, 3, 4, 5)])
    kept = source.read_on(RUN, source.Kept())
    assert [one.step for one in kept.steps] == [1, 2, 3, 4, 5]
    assert [one.step for one in kept.last] == [1, 2, 3, 4, 5]


def test_looks_here_and_there_that_meet_the_end_count_no_step_twice(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    monkeypatch.setattr(source, "MOST_BYTES", 9_000)
    routing(Layout(tmp_path), RUN, [step(n) for n in range(1, 60)])
    kept = source.read_on(RUN, source.Kept())
    steps = [one.step for one in kept.steps]
    assert kept.is_part
    assert steps == sorted(set(steps))
    assert [one.step for one in kept.last] == list(range(60 - len(kept.last), 60))


def test_what_was_read_is_kept_of_a_few_runs_alone(tmp_path, monkeypatch):
    runs = [f"{RUN}{n}" for n in range(5)]
    for run in runs:
        routing(Layout(tmp_path), run, [step(1)])
    app = opened(monkeypatch, tmp_path, "experts", run=runs[0])
    for run in runs[1:]:
        app.query_params["run"] = run
        app.run()
    assert list(app.session_state["routing of runs"]) == runs[2:]


def test_names_of_layers_and_modalities_are_no_markdown(tmp_path, monkeypatch):
    seen = {"tokens": 800, "visits": [1] * 800, "share": [], "entropy": 0.5}
    line = {"step": 1, "layers": {MARKDOWN: {MARKDOWN: seen, "image": seen}}}
    routing(Layout(tmp_path), RUN, [line])
    app = opened(monkeypatch, tmp_path, "experts", run=RUN)
    assert not app.exception
    read = [one.value for kind in ("markdown", "caption") for one in getattr(app, kind)]
    assert not [one for one in (*read, *(one.label for one in app.expander)) if "![p](" in one]
    assert "1 modalities that this version does not know are left out" in said(app)


def test_a_receipt_that_comes_later_is_read(tmp_path, monkeypatch):
    layout, _ = version(tmp_path, "one", 8)
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    (known,) = read.models(layout)
    shutil.rmtree(known.model_folder, ignore_errors=True)
    assert surgery(known) is None
    known.model_folder.mkdir()
    receipt = {"operation": {"name": "upcycle"}, "slots": ["base", "image"]}
    write_json(known.model_folder / "receipt.json", receipt)
    assert surgery(known).slots == ("base", "image")


def test_a_merge_tells_by_layer_and_expert_how_much_it_changed(tmp_path, monkeypatch):
    layout, _ = version(tmp_path, "one", 8)
    of_layer = "language_model.model.layers.{}.mlp.experts.{}_proj"
    entries = [
        {"target": of_layer.format(0, "gate_up"), "norm": [3.0, 0.0, 1.0]},
        {"target": of_layer.format(0, "down"), "norm": [4.0, 0.5, 0.0]},
        {"target": of_layer.format(2, "down"), "norm": [1.0, 2.0, 3.0]},
        {"target": of_layer.format(2, "down"), "norm": None},
        {"target": "language_model.model.layers.0.self_attn.q_proj.weight", "norm": 9.0},
    ]
    told = {"operation": {"name": "merge"}, "slots": ["base", "image", "video"], "origins": entries}
    write_json(read.models(layout)[0].model_folder / "receipt.json", told)
    app = opened(monkeypatch, tmp_path, "experts")
    assert not app.exception
    (table,) = (one.value for one in app.dataframe if "layer" in one.value)
    assert table.to_dict("records") == [
        {"layer": "0", "0 base": 5.0, "1 image": 0.5, "2 video": 1.0},
        {"layer": "2", "0 base": 1.0, "1 image": 2.0, "2 video": 3.0},
    ]
    assert "this command tells" not in said(app)


def test_who_is_dead_is_what_the_alarms_of_training_say():
    for load in ([0.5, 0.499, 0.001], [1.0, 0.0, 0.0], [0.4, 0.3, 0.3]):
        facts = LayerFacts(1, tuple(load), max(load), 0.5)
        assert pure.dead(load, 0.01) == facts.dead(0.01)


def test_steps_join_by_tokens():
    one, two = (pure.step_of(step(n, visits=(n, 0, 0), entropy=n)) for n in (1, 3))
    seen = pure.joined([one, two]).layers["0"]["image"]
    assert (seen.tokens, seen.visits, seen.entropy) == (10, (4, 0, 0), 2)


def test_an_expert_that_one_modality_shuns_is_alive():
    found = pure.quiet_ones(pure.with_all(LOAD), 0.01)
    assert [(one.layer, one.slot, one.is_dead) for one in found] == [("2", 2, True)]
    shunned = {"image": {"0": [0.5, 0.5]}, "audio": {"0": [1.0, 0.0]}}
    (one,) = pure.quiet_ones(pure.with_all(shunned), 0.01)
    assert (one.is_dead, one.modalities) == (False, ("audio",))


def test_the_dead_are_judged_by_the_params_of_the_run_and_of_no_other(tmp_path, monkeypatch):
    """The workspace's params.yaml of today says nothing about a run of yesterday."""
    strict = {"telemetry": {"router": {**TOLD["telemetry"]["router"], "dead_share": 0.9}}}
    lines = [step(n, visits=(6, 4, 2)) for n in range(1, 30)]
    for name, params in ((RUN, TOLD), (f"{RUN}1", strict), (f"{RUN}2", {"seed": 7})):
        routing(Layout(tmp_path), name, lines, params=params)
    assert "No expert is dead in steps" in said(opened(monkeypatch, tmp_path, "experts", run=RUN))
    told = said(opened(monkeypatch, tmp_path, "experts", run=f"{RUN}1"))
    assert "1 expert is dead" in told
    assert "90.0 % of an even load" in told
    told = said(opened(monkeypatch, tmp_path, "experts", run=f"{RUN}2"))
    assert "Nothing is said of dead experts" in told
    assert "No expert is dead" not in told
