"""Verification over a real road at its smallest: every grade, a planted step, what is not told."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import pytest
import yaml

from benchmarks.kills import names, smallest
from flows import restore
from uni_moe import cli_verify
from uni_moe.artifacts import CARD, Layout, read_json, sha256_file, write_json
from uni_moe.audit_log import log_file, read_log
from uni_moe.cli import main
from uni_moe.cli_stages import PHASES, STAGES
from uni_moe.data.manifest import read_manifest
from uni_moe.data.validated import ACCEPTED
from uni_moe.native import native
from uni_moe.records import MODALITIES
from uni_moe.registry import read
from uni_moe.registry.write import register
from uni_moe.storage.sums import sums_of, sums_text
from uni_moe.verify.code import own_code
from uni_moe.verify.family import STATES
from uni_moe.verify.intervals import draw, intervals_of
from uni_moe.workspace import make_workspace

pytestmark = pytest.mark.operate
STEPS, EVERY = 6, 2
TRAINED = [name for name in names(STAGES) if name.partition("@")[0] in ("foundation", *PHASES)]
INTERVALS = len(TRAINED) * STEPS // EVERY
# A program that trains as the command does, but for one step that learns half as fast.
PLANTED = """
import sys
from uni_moe.cli import main
from uni_moe.train.engine import Engine
honest, taken = Engine.step, []
def step(self, learning_rate):
    taken.append(learning_rate)
    return honest(self, learning_rate * (0.5 if len(taken) == 3 else 1.0))
Engine.step = step
raise SystemExit(main(sys.argv[1:]))
"""


def python(root, *words):
    environment = {**os.environ, **own_code()}
    said = subprocess.run(
        [sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr[-3000:]


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A workspace whose every stage ran as a process of its own, and one registered model."""
    root = make_workspace(tmp_path_factory.mktemp("road") / "space", "smoke")
    data = smallest(yaml.safe_load((root / "params.yaml").read_text()))
    trainings = [part["tiny"] for part in data["foundation"].values()]
    for plan in (*trainings, *data["align"].values(), *data["experts"].values(), data["tune"]):
        plan |= {"steps": STEPS, "save_every_steps": EVERY}
    (root / "params.yaml").write_text(yaml.safe_dump(data))
    for stage in names(STAGES):
        python(root, "-m", "uni_moe", stage)
    register(Layout(root), reason="a test", who="ada")
    return Layout(root)


@pytest.fixture(scope="module")
def planted_road(road, tmp_path_factory):
    """The same with a second model, one of whose steps was changed: all its hashes are in order.

    The states of its last training are kept.
    """
    layout = copied(road, tmp_path_factory.mktemp("planted"))
    (layout.root / "machine.yaml").write_text("keep_states: true\n")
    shutil.rmtree(layout.model)
    python(layout.root, "-c", PLANTED, "--workspace", str(layout.root), "tune")
    python(layout.root, "-m", "uni_moe", "evaluate")
    assert register(layout, reason="planted", who="eve").number == 2
    return layout


@pytest.fixture(scope="module")
def continued_road(road, tmp_path_factory):
    """The same with a second model tuned from the first, and a third from that, planted."""
    layout = copied(road, tmp_path_factory.mktemp("continued"))
    programs = {2: ("-m", "uni_moe"), 3: ("-c", PLANTED, "--workspace", str(layout.root))}
    for number, program in programs.items():
        data = yaml.safe_load(layout.params.read_text())
        data["tune"]["start"] = read.find(layout, str(number - 1)).model
        layout.params.write_text(yaml.safe_dump(data))
        shutil.rmtree(layout.model)
        python(layout.root, *program, "tune")
        python(layout.root, "-m", "uni_moe", "evaluate")
        assert register(layout, reason="continued", who="ada").number == number
    return layout


def copied(one, folder):
    copy = shutil.copytree(one.root, folder / "space", symlinks=True)
    for file in copy.glob("registry.sqlite*"):  # it belongs to the workspace that was copied
        file.unlink()
    return Layout(copy)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return what copies a workspace to a folder where nobody else is."""
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    monkeypatch.setattr(cli_verify, "user", lambda: "ada")
    return lambda one: copied(one, tmp_path)


@pytest.fixture
def layout(road, own):
    return own(road)


@pytest.fixture
def planted(planted_road, own):
    return own(planted_road)


@pytest.fixture
def continued(continued_road, own):
    return own(continued_road)


def verified(layout, capsys, *words):
    """Verify, and hold the workspace to what it was: the log alone grows."""
    before, entries = content(layout), len(read_log(layout).entries)
    code = main(["--workspace", str(layout.root), "verify", *words, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == told["exit_code"]
    assert content(layout) == before
    assert [path.name for path in layout.root.parent.iterdir()] == ["space"]
    (entry,) = read_log(layout).entries[entries:]
    assert (entry.event, entry.evidence["verdict"]) == ("verification", told["verdict"])
    return told


def content(layout):
    ours = (path for path in layout.root.rglob("*") if path.is_file())
    out = (log_file(layout), layout.store / ".lock")
    return {p: sha256_file(p) for p in ours if p not in out and "sqlite" not in p.name}


def test_an_honest_model_passes_the_grades_without_training(layout, capsys):
    assert verified(layout, capsys, "1")["verdict"] == "passed"
    told = verified(layout, capsys, "1", "--grade", "1")
    assert told["verdict"] == "passed"
    assert {"artifacts/samples/image", "artifacts/corpus/speech"} <= set(told["checked"])


def test_a_changed_manifest_is_found_though_its_sums_were_changed_along(layout, capsys):
    shutil.rmtree(layout.artifacts)
    (kept, *_) = sorted(layout.store.glob(f"seen/*/{ACCEPTED}"))
    kept.write_bytes(kept.read_bytes()[:-1])
    kept.parent.with_name(f"{kept.parent.name}.sha256").write_text(sums_text(sums_of(kept.parent)))
    told = verified(layout, capsys, "1")
    assert told["verdict"] == "changed"
    assert told["first_bad"]["artifact"] == f"store/seen/{kept.parent.name}"


def test_samples_whose_raw_data_moved_on_are_taken_as_kept_and_named(layout, capsys, monkeypatch):
    model = read.find(layout, "1").model
    monkeypatch.setattr(
        restore, "moved_since", lambda _, of: ["data is another one"][of != model :]
    )
    told = verified(layout, capsys, "1", "--grade", "1")
    assert (told["verdict"], told["bad"]) == ("incomplete", [])
    samples = {f"artifacts/samples/{name}" for name in MODALITIES}
    assert {one["artifact"] for one in told["unchecked"]} == samples
    assert "not those of then: data is another one" in told["unchecked"][0]["what"]
    assert {"artifacts/corpus/speech", "artifacts/validated/report"} <= set(told["checked"])
    shutil.rmtree(layout.samples("audio"))
    told = verified(layout, capsys, "1", "--grade", "1")
    assert told["verdict"] == "incomplete"
    assert "artifacts/corpus/speech" in {one["artifact"] for one in told["unchecked"]}


def test_a_training_that_tells_of_no_state_is_not_counted_as_passed(layout, capsys):
    """Whoever forges a card may leave out what could be compared."""
    (layout.model / STATES).unlink()
    card = read_json(layout.model / CARD)
    del card["files"][STATES]
    write_json(layout.model / CARD, card)
    python(layout.root, "-m", "uni_moe", "evaluate")
    assert register(layout, reason="forged", who="eve").number == 2
    told = verified(layout, capsys, "2", *drawing(layout, 2, "artifacts/align/image"))
    assert (told["verdict"], told["exit_code"]) == ("incomplete", 10)
    (gap,) = told["unchecked"]
    assert gap["artifact"] == "artifacts/model"
    assert "tells of no state" in gap["what"]


def test_everything_from_the_sources_has_the_same_hashes(layout, capsys):
    for path in (layout.artifacts, layout.state):
        shutil.rmtree(path)  # the store alone is left
    told = verified(layout, capsys, "1", "--grade", "3")
    assert (told["verdict"], told["bad"], told["unchecked"]) == ("passed", [], [])
    assert {"artifacts/model", "artifacts/report", "artifacts/assembled"} <= set(told["checked"])


def test_a_model_tuned_from_another_is_made_again_with_that_one(continued, capsys):
    first = read.find(continued, "1").model[:12]
    for path in (continued.artifacts, continued.state):
        shutil.rmtree(path)
    told = verified(continued, capsys, "2", "--grade", "3")
    assert (told["verdict"], told["bad"], told["unchecked"]) == ("passed", [], [])
    both = {"artifacts/model", "artifacts/report", f"artifacts/model of {first}"}
    assert {*both, f"artifacts/assembled of {first}"} <= set(told["checked"])


def test_intervals_are_drawn_from_all_models_that_one_was_tuned_from(continued, capsys):
    every = INTERVALS + 2 * STEPS // EVERY
    earlier = [f"artifacts/model of {read.find(continued, n).model[:12]}" for n in "12"]
    assert in_order(continued, "3")[-3:] == [*earlier, "artifacts/model"]
    for training, verdict in ((earlier[0], "passed"), ("artifacts/model", "changed")):
        told = verified(continued, capsys, "3", *drawing(continued, 4, training, "3"))
        assert (told["verdict"], told["intervals"]["total"]) == (verdict, every)
        assert verdict == "passed" or told["first_bad"]["artifact"] == training


def test_one_changed_step_is_found_by_all_intervals(planted, capsys):
    assert verified(planted, capsys, "2")["verdict"] == "passed"
    told = verified(planted, capsys, "2", "--grade", "2", "--intervals", "all")
    assert (told["verdict"], told["exit_code"]) == ("changed", 1)
    assert told["first_bad"]["artifact"] == "artifacts/model"
    assert "steps 3 to 4, trained again, end in another state" in told["first_bad"]["what"]
    counts = told["intervals"]
    assert (counts["count"], counts["total"], counts["covered"]) == (INTERVALS,) * 3
    assert counts["chance"] == {"least": 1.0, "mean": 1.0}
    honest = Counter(one.partition(",")[0] for one in told["checked"] if ", steps " in one)
    assert honest == dict.fromkeys(in_order(planted)[:-1], STEPS // EVERY)


@pytest.mark.parametrize(
    ("has_states", "end", "verdict"),
    [
        (True, 2, "passed"),
        (True, 4, "changed"),
        (True, 6, "passed"),  # its beginning holds the change, which none of its own steps made
        (False, 2, "passed"),
        (False, 6, "changed"),  # on the way to it
    ],
)
def test_a_draw_finds_a_changed_step_where_it_trains_through_it(
    planted, capsys, has_states, end, verdict
):
    if not has_states:
        shutil.rmtree(planted.state)
    told = verified(planted, capsys, "2", *drawing(planted, end))
    assert told["verdict"] == verdict
    assert told["intervals"]["covered"] == (1 if has_states else end // EVERY)
    assert told["intervals"]["chance"]["least"] == pytest.approx(1 / INTERVALS)


def drawing(layout, end, training="artifacts/model", model="2"):
    """Return the words that draw the one interval of a training that ends in a step."""
    every = [i for name in in_order(layout, model) for i in intervals_of(name, (2, 4), STEPS)]
    wanted = [i for i in every if (i.training, i.end) == (training, end)]
    seed = next(seed for seed in range(9999) if draw(every, 1, seed) == wanted)
    return ("--grade", "2", "--intervals", "1", "--seed", str(seed))


def in_order(layout, model="2"):
    """Return the names of what was trained, in the order that verify takes."""
    from uni_moe.verify.hashes import check_hashes

    hashed = check_hashes(layout, read.find(layout, model), has_remote=False)
    told = (one for one in hashed.family.everyone if STATES in one.card.files)
    return [one.label for one in told if one.is_trained]


def test_samples_that_differ_where_no_lock_tells_the_raw_data_of_then_are_a_gap(layout, capsys):
    key = min(row["key"] for row in read_manifest(layout.samples("image")))
    assert main(["--workspace", str(layout.root), "remove", key]) == 0
    capsys.readouterr()
    told = verified(layout, capsys, "1", "--grade", "1")
    assert (told["verdict"], told["bad"]) == ("incomplete", [])
    gap = next(o for o in told["unchecked"] if o["artifact"] == "artifacts/samples/image")
    assert "no kept lock tells the raw data of then; artifacts/samples/image: made" in gap["what"]
    assert "artifacts/corpus/image" in told["checked"]


def test_samples_that_differ_where_a_lock_tells_of_the_same_raw_data_are_changed(
    layout, capsys, monkeypatch
):
    monkeypatch.setattr(restore, "moved_since", lambda *_: [])
    key = min(row["key"] for row in read_manifest(layout.samples("image")))
    assert main(["--workspace", str(layout.root), "remove", key]) == 0
    capsys.readouterr()
    told = verified(layout, capsys, "1", "--grade", "1")
    assert told["verdict"] == "changed"
    assert told["first_bad"]["artifact"] == "artifacts/samples/image"


def test_sources_and_contracts_that_are_gone_leave_gaps(layout, capsys):
    contract = layout.root / "data_contracts/manifest.yaml"
    text = contract.read_text()
    contract.write_text(text.replace("version: ", "version: 9", 1))
    told = verified(layout, capsys, "1", "--grade", "1")
    assert (told["verdict"], told["exit_code"]) == ("incomplete", 10)
    assert "another contract" in told["unchecked"][0]["what"]
    contract.unlink()
    shutil.rmtree(layout.root / "data")
    told = verified(layout, capsys, "1", "--grade", "3")
    assert told["verdict"] == "incomplete"
    assert told["unchecked"][0]["what"] == "data is gone; data_contracts/manifest.yaml is gone"


def test_a_model_of_another_machine_is_not_comparable(layout, capsys):
    for file in layout.runs.glob("*/events.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            if "processor" in row:
                row["processor"] = "a processor of another maker"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for grade in ("2", "3"):
        told = verified(layout, capsys, "1", "--grade", grade)
        assert (told["verdict"], told["exit_code"]) == ("not comparable", 9)
        assert "processor was a processor of another maker" in told["not_comparable"][0]
    assert verified(layout, capsys, "1", "--grade", "1")["verdict"] == "passed"


@pytest.mark.skipif(native() is None, reason="this machine has no C compiler")
def test_a_model_is_trained_again_by_the_routes_in_its_record(layout, capsys, monkeypatch):
    """Its training had no compiler; `auto` takes the one that is here, which gives other bits."""
    shutil.rmtree(layout.model)
    with monkeypatch.context() as without:
        without.setenv("CC", "no-such-compiler")
        for stage in ("tune", "evaluate"):
            python(layout.root, "-m", "uni_moe", stage)
    second = register(layout, reason="no compiler", who="ada")
    assert (second.number, second.model == read.find(layout, "1").model) == (2, False)
    assert verified(layout, capsys, "2", *drawing(layout, STEPS))["verdict"] == "passed"


def test_a_model_of_other_packages_is_not_comparable(layout, capsys):
    for file in layout.runs.glob("*/run.json"):
        record = read_json(file)
        record["environment"]["packages"]["av"] = "1.0"
        write_json(file, record)
    told = verified(layout, capsys, "1", "--grade", "1")
    assert told["verdict"] == "not comparable"
    assert "av was 1.0" in told["not_comparable"][0]


def test_a_difference_whose_origin_nobody_knows_is_not_comparable(planted, capsys):
    for file in planted.runs.glob("*-tune-*/run.json"):
        write_json(file, read_json(file) | {"artifacts": {}})
    told = verified(planted, capsys, "2", *drawing(planted, 4))
    assert told["verdict"] == "not comparable"
    assert "no record tells where it was made" in told["not_comparable"][0]


def test_a_training_whose_inputs_are_gone_is_not_counted_as_passed(layout, capsys):
    shutil.rmtree(layout.corpus("audio"))
    told = verified(layout, capsys, "1", "--grade", "2", "--intervals", "1", "--seed", "3")
    assert told["verdict"] == "incomplete"
    gone = {one["artifact"] for one in told["unchecked"]}
    assert {"artifacts/corpus/audio", "artifacts/align/audio", "artifacts/model"} <= gone
    assert "artifacts/align/image" not in gone
