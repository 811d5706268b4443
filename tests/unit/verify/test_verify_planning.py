"""What a verification decides before it acts: order, params then, whether bits can be compared."""

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from tests.unit.data.workspace import PROJECT
from uni_moe import platform
from uni_moe.artifacts import Layout, code_hash_of, read_card
from uni_moe.config import Platform, load_params, parse_params
from uni_moe.data.ingest import params_of
from uni_moe.machine import TOLD, Machine
from uni_moe.platform import choose, machine
from uni_moe.records import MODALITIES, Card
from uni_moe.runs import start_run
from uni_moe.train import state
from uni_moe.verify.comparable import (
    Here,
    Origin,
    code_differs,
    comparable,
    other_circumstances,
    unknown,
)
from uni_moe.verify.family import STATES, differences, family_of
from uni_moe.verify.intervals import Chance, Interval
from uni_moe.verify.origins import here_for, origins_in, routes_for
from uni_moe.verify.past_params import params_then, paths_in
from uni_moe.verify.remaking import missing
from uni_moe.verify.retraining import first_difference, lay_state
from uni_moe.verify.verdict import Drawn, Finding, Findings, Verification
from uni_moe.workspace import make_workspace


def card(stage, parents=(), *, code="c", **told):
    facts = {"params": {}, "files": {}, "results": {}, **told}
    return Card(stage, stage, parents={n: c.id for n, c in parents}, code=code, **facts)


SAMPLES = ("a/samples", card("ingest"))
CORPUS = ("a/corpus", card("prepare@image", [SAMPLES]))
ALIGN = ("a/align", card("align@image", [CORPUS], files={"states.jsonl": "1"}))
EXPERT = ("a/experts", card("experts@image", [CORPUS, ALIGN]))
MODEL = ("a/model", card("tune", [CORPUS, EXPERT]))


def test_parents_stand_before_children_whatever_they_are_called():
    family = family_of(sorted([MODEL, ALIGN, EXPERT, CORPUS, SAMPLES]))
    order = ["a/samples", "a/corpus", "a/align", "a/experts", "a/model"]
    assert [one.name for one in family.members] == order
    assert list(family.stages(family.members))[:2] == ["ingest", "prepare@image"]
    assert [one.is_data for one in family.members] == [True, True, False, False, False]
    trained = [one.name for one in family.members if one.is_trained]
    assert trained == ["a/align", "a/experts", "a/model"]


def test_a_part_that_was_only_adopted_was_not_trained_and_whoever_hides_its_states_was():
    adopted = ("a/image", card("foundation@image", results={"pretrained": True}))
    tiny = ("a/audio", card("foundation@audio"))
    model = ("a/model", card("tune", [adopted, tiny]))
    trained = [one.name for one in family_of([adopted, tiny, model]).members if one.is_trained]
    assert trained == ["a/audio", "a/model"]


def test_a_verdict_of_the_contract_on_these_samples_alone_is_of_the_family():
    own = ("a/contract", card("validate", [SAMPLES], results={"kept": True}))
    other = ("a/contract", card("validate", [SAMPLES, ("a/more", card("ingest", code="d"))]))
    everything = [MODEL, ALIGN, EXPERT, CORPUS, SAMPLES]
    names = [one.name for one in family_of(everything, verdicts=[own, other]).members]
    assert names[:3] == ["a/samples", "a/contract", "a/corpus"]
    assert len(names) == len(everything) + 1


def test_generations_of_a_model_that_was_tuned_again_share_data_and_no_names():
    corpus = ("a/corpus", card("prepare@image", [SAMPLES], results={"examples": 9}))
    base = ("store/m/model", MODEL[1])
    second = ("a/model", card("tune", [corpus, base]))
    third = ("a/model", card("tune", [corpus, ("store/n/model", second[1])]))
    known = [third, second, corpus, MODEL, ALIGN, EXPERT, CORPUS, SAMPLES]
    report = ("a/report", card("evaluate", [third, corpus]))
    last, middle, first = family_of(known, [report]).line
    assert [one.card for one in last.members] == [SAMPLES[1], corpus[1], third[1], report[1]]
    assert [one.card for one in middle.members] == [SAMPLES[1], corpus[1], second[1]]
    assert first.members[-1].label == f"a/model of {MODEL[1].id[:12]}"
    assert last.members[-2].label == "a/model"
    everyone = [one.card.id for one in last.everyone]
    assert sorted(everyone) == sorted(one.id for _, one in [*known, report])
    places = {one: place for place, one in enumerate(everyone)}
    cards = [one.card for one in last.everyone]
    assert all(places[p] < places[c.id] for c in cards for p in c.parents.values())
    labels = {one.card.id: one.label for one in last.everyone}
    assert labels[corpus[1].id] == "a/corpus"
    assert labels[CORPUS[1].id] == f"a/corpus of {MODEL[1].id[:12]}"
    assert len(set(labels.values())) == len(labels)


def test_the_report_that_read_other_data_is_not_of_the_family():
    everything = [MODEL, ALIGN, EXPERT, CORPUS, SAMPLES]
    own = ("a/report", card("evaluate", [MODEL, CORPUS]))
    other = ("a/report", card("evaluate", [MODEL, ("a/corpus", card("prepare@image"))]))
    again = ("a/report", card("judge", [MODEL, CORPUS]))
    assert family_of(everything, [own, again, other]).members[-1].card == own[1]
    assert family_of(everything, [other]).members[-1].card == MODEL[1]


def test_a_family_knows_by_which_file_a_training_is_told():
    assert STATES == state.STATES


def test_a_verdict_stands_behind_all_that_it_judged_whatever_was_adopted():
    adopted = [(f"a/foundation/{n}", card("foundation@x", params={"n": n})) for n in range(4)]
    samples = [(f"a/samples/{n}", card("ingest", params={"n": n})) for n in range(3)]
    verdict = ("a/validated", card("validate", samples))
    model = ("a/model", card("tune", [*adopted, *samples]))
    order = family_of([*adopted, *samples, model], verdicts=[verdict]).members
    assert [one.card.stage for one in order][-2:] == ["validate", "tune"]


def test_what_differs_is_told_by_its_name():
    old = card("ingest", files={"a": "1", "b": "2"}, results={"listed": 7})
    new = replace(old, files={"a": "9", "c": "3"}, results={"listed": 6})
    assert differences(old, new) == [
        "files: a is 9, 1 is told; b is missing; c is new",
        "results: listed is 6, 7 is told",
    ]
    assert differences(old, replace(old, code="other")) == []


def cards_of(params):
    """Return the cards that the stages of a road would write, as far as they hold params."""
    seed, section = params.seed, params.section
    same = {"seed": seed, "platform": section("platform")}
    phase = {
        **same,
        **{name: section(name) for name in ("model", "prepare", "telemetry")},
    }
    yield from (card("ingest", params=params_of(params, modality)) for modality in MODALITIES)
    for part in ("image", "audio", "speech", "language"):
        own = {"foundation": section("foundation", part)}
        more = {"model": section("model", "system_prompt")} if part == "language" else {}
        yield card(f"foundation@{part}", params={**same, **own, **more})
    for name in ("image", "audio", "speech"):
        yield card(f"align@{name}", params={**phase, "align": section("align", name)})
    for name in ("image", "video", "audio", "speech"):
        yield card(f"experts@{name}", params={**phase, "experts": section("experts", name)})
    shape = {"model": section("model"), "assembly": section("assembly")}
    yield card("assemble", params={**same, **shape})
    yield card("tune", params={**phase, "tune": section("tune")})
    yield card("evaluate", params={**same, "evaluate": section("evaluate"), "metrics": 1})


RECIPES = sorted((PROJECT / "uni_moe/recipes").glob("*.yaml"))


@pytest.mark.parametrize("then", RECIPES, ids=lambda file: file.stem)
@pytest.mark.parametrize("now", [RECIPES[-1], RECIPES[-2]], ids=lambda file: file.stem)
def test_the_cards_of_a_family_hold_the_params_that_made_it(then, now):
    old, today = load_params(then), load_params(now)
    found = parse_params(params_then(today, cards_of(old)))
    assert replace(found, raw=old.raw, gate=old.gate, contract=old.contract) == old
    assert (found.gate, found.contract) == (today.gate, today.contract)


@pytest.mark.parametrize(
    ("today", "raw"), [("data", "data"), (".", "."), ("elsewhere", "data"), ("../x", "data")]
)
def test_raw_is_a_folder_that_holds_the_sources_of_then(today, raw):
    then = load_params(PROJECT / "uni_moe/recipes/paper-4-all.yaml")
    params = replace(load_params(PROJECT / "params.yaml"), raw=today)
    assert params_then(params, cards_of(then))["raw"] == raw


def test_a_stages_own_cards_count_before_those_of_others():
    params = load_params(PROJECT / "params.yaml")
    own = card("tune", params={"seed": 99, "tune": params.section("tune")})
    assert params_then(params, cards_of(params), [own])["seed"] == 99
    assert params_then(params, cards_of(params))["seed"] == params.seed


def test_files_that_stages_start_from_are_named_where_they_are_gone(tmp_path):
    data = params_then(load_params(PROJECT / "uni_moe/recipes/recordings.yaml"), ())
    gone = missing(data, tmp_path)
    assert len(gone) == len(paths_in(data)) > 2
    (tmp_path / "data_contracts").mkdir()
    (tmp_path / data["contract"]["manifest"]).write_text("")
    assert len(missing(data, tmp_path)) == len(gone) - 1


ROUTES = {"threads": 1, "matmul": "onednn", "allocator": "keep"}
ORIGIN = Origin(
    run="r1",
    commit="abc",
    python="3.11.4",
    packages={"torch": "2.9", "av": None},
    computed={**ROUTES, "processor": "A", "native": "a"},
    spread={"launcher": "none", "processes": 1},
)
HERE = Here("3.11.9", {"torch": "2.9", "av": None, "numpy": "2"}, ORIGIN.computed)


@pytest.mark.parametrize(
    ("here", "said"),
    [
        (HERE, None),
        (replace(HERE, computed={**HERE.computed, "allocator": "map"}), None),
        (replace(HERE, computed={**HERE.computed, "processor": "B"}), "processor was A, here it"),
        (replace(HERE, computed={**HERE.computed, "matmul": "default"}), "matmul was onednn"),
        (replace(HERE, packages={"torch": "3.0", "av": "16"}), "av was None, here it is 16; torch"),
        (replace(HERE, python="3.12.1"), "python was 3.11, here it is 3.12"),
        (replace(HERE, computed=None), None),
        (replace(HERE, computed={**HERE.computed, "native": "b"}), "native was a, here it is b"),
    ],
)
def test_other_machines_routes_and_packages_are_not_comparable(here, said):
    found = other_circumstances("tune", [(ORIGIN, here)])
    assert found is None if said is None else said in found


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ({"moved": {"cpu": ["AVX2", "AVX512"]}}, "it went on where cpu was AVX512"),
        ({"spread": {"launcher": "torchrun", "processes": 2, "nodes": 1}}, None),
        ({"spread": {"launcher": "torchrun", "nodes": 2}}, "trained on 2 node(s) by torchrun"),
        ({"spread": {"launcher": "slurm", "nodes": 1}}, "by slurm"),
        ({"computed": None, "spread": None}, None),
    ],
)
def test_what_moved_or_was_spread_over_nodes_is_not_comparable(origin, said):
    found = other_circumstances("tune", [(replace(ORIGIN, **origin), HERE)])
    assert found is None if said is None else said in found


def test_one_run_that_made_it_as_here_is_enough():
    elsewhere = replace(ORIGIN, packages={"torch": "1.0"})
    assert other_circumstances("tune", [(elsewhere, HERE)]) is not None
    both = [(ORIGIN, HERE), (elsewhere, HERE)]
    assert other_circumstances("tune", both) is None
    assert comparable(both) is ORIGIN
    assert comparable([(elsewhere, HERE)]) is None


def test_compiled_code_that_computed_nothing_may_be_another_one():
    origin = replace(ORIGIN, computed={**ROUTES, "elementwise": "torch", "native": None})
    here = replace(HERE, computed={**ROUTES, "elementwise": "torch", "native": "a"})
    assert other_circumstances("tune", [(origin, here)]) is None


def test_a_run_is_repeated_by_its_own_routes_where_the_machine_has_them():
    choice = Platform.auto(threads=1)
    chosen = choose(choice).to_json()
    other = {"threads": 2, "matmul": "default", "attention": "fused", "elementwise": "torch"}
    assert other.items() - chosen.items()
    origin = replace(ORIGIN, packages={}, python=None, computed={**chosen, **other, **machine()})
    assert here_for(choice, origin).computed == origin.computed
    assert other_circumstances("tune", [(origin, here_for(choice, origin))]) is None
    assert here_for(None, origin).computed is None
    assert routes_for(choice, replace(origin, computed=None)) == chosen


def test_a_run_is_not_comparable_where_the_machine_lacks_its_routes(monkeypatch):
    choice = Platform.auto(threads=1)
    told = {**choose(choice).to_json(), **machine(), "elementwise": "native", "native": None}
    monkeypatch.setattr(platform, "has_compiled_code", lambda: False)
    origin = replace(ORIGIN, packages={}, python=None, computed=told)
    said = other_circumstances("tune", [(origin, here_for(choice, origin))])
    assert "elementwise was native, here it is torch" in said


def test_nobody_knows_where_it_was_made_without_a_record():
    assert unknown([], trained=False)
    assert unknown([replace(ORIGIN, computed=None)], trained=True)
    assert not unknown([replace(ORIGIN, computed=None)], trained=False)
    assert not unknown([ORIGIN], trained=True)


def test_another_code_is_told_with_the_commit_to_check_out():
    made = card("tune", code="f" * 64)
    assert code_differs(made, {"f" * 64}, [ORIGIN]) is None
    assert "check out abc" in code_differs(made, {"0"}, [ORIGIN])
    assert "no run record tells its commit" in code_differs(made, {"0"}, [])


def test_the_hash_of_code_depends_on_names_and_bytes(tmp_path):
    files = [tmp_path / name for name in "xy"]
    for file in files:
        file.write_text(file.name)
    x, y = files
    hashes = {code_hash_of(told) for told in ({"a": x}, {"b": x}, {"a": y}, {"a": x, "b": y})}
    assert len(hashes) == 4
    assert code_hash_of({"a": x, "b": y}) == code_hash_of({"b": y, "a": x})


ROWS = {step: {"step": step, "loss": 1.0, "sha256": str(step)} for step in (2, 4, 6)}


@pytest.mark.parametrize(
    ("changed", "stretch", "first"),
    [
        ({}, (0, 8), None),
        ({4: {"step": 4, "loss": 1.0, "sha256": "x"}}, (0, 8), 4),
        ({4: {"step": 4, "loss": 2.0, "sha256": "4"}}, (0, 8), 4),
        ({4: {}, 6: {}}, (0, 8), 4),
        ({4: {}}, (4, 8), None),
        ({4: {}}, (0, 2), None),
        ({6: {}}, (0, 6), 6),
    ],
)
def test_the_first_state_that_differs_on_the_way_is_named(changed, stretch, first):
    assert first_difference(ROWS, {**ROWS, **changed}, Interval("a", *stretch)) == first


def test_a_recorded_state_that_never_came_is_a_difference():
    assert first_difference(ROWS, {2: ROWS[2]}, Interval("a", 0, 8)) == 4


BAD, GAP = Finding("a/x", "bad"), Finding("a/y", "gone")


@pytest.mark.parametrize(
    ("found", "word", "code"),
    [
        (Findings(("a/z",)), "passed", 0),
        (Findings(unchecked=(GAP,)), "incomplete", 10),
        (Findings(unchecked=(GAP,), not_comparable=("w",)), "not comparable", 9),
        (Findings(bad=(BAD,), unchecked=(GAP,), not_comparable=("w",)), "changed", 1),
    ],
)
def test_a_verdict_never_passes_over_what_is_bad_or_was_not_checked(found, word, code):
    done = Verification(3, "m" * 64, 1, found)
    assert (done.verdict, done.exit_code) == (word, code)
    assert done.to_json()["verdict"] == word
    assert done.text.startswith(f"{word}: version 3")
    assert ("first_bad" in done.to_json()) == (word == "changed")


def test_what_a_later_grade_checked_is_unchecked_no_more():
    first = Findings(("a/x",), unchecked=(GAP, Finding("a/w", "gone")))
    both = first.and_then(Findings(("a/y",)))
    assert [one.artifact for one in both.unchecked] == ["a/w"]
    assert both.checked == ("a/x", "a/y")


def test_a_draw_says_what_it_promises():
    some = Drawn(2, 8, 5, 7, Chance(0.25, 0.5))
    assert "2 of 8 intervals drawn (--seed 7), 3 more on the way to them" in some.text
    assert "at least 25.0%, 50.0% on average" in some.text
    assert "for certain" in Drawn(8, 8, 8, 7, Chance(1.0, 1.0)).text


def test_the_code_of_a_stage_is_known_before_it_runs(tmp_path):
    from uni_moe.verify.code import code_here, own_code

    known = code_here("ingest")
    layout = Layout(make_workspace(tmp_path, "smoke"))
    words = ["-m", "uni_moe", "--workspace", str(tmp_path), "ingest"]
    subprocess.run([sys.executable, *words], env={**os.environ, **own_code()}, check=True)
    made = [read_card(card.parent) for card in layout.artifacts.rglob("card.json")]
    assert {one.code for one in made} <= known
    assert made
    assert Path(own_code()["PYTHONPATH"].split(os.pathsep)[0]) == PROJECT


def test_a_kept_state_is_laid_with_all_that_was_noted_up_to_it(tmp_path):
    name = "tune-0123456789abcdef"
    kept = state.StateStore(tmp_path / "state" / name, keep=True)
    for step in (1, 2, 3):
        kept.save(state.TrainingState(step, 1.0, {"w": torch.ones(step)}, {}))
        kept.settle()
    there = Layout(tmp_path / "there")
    lay_state(kept.folder / "step-00000002", 2, there)
    found = state.StateStore(there.state / name)
    assert found.newest() == 2
    assert found.traces() == {n: one for n, one in kept.traces().items() if n <= 2}
    assert torch.equal(found.at(2).tensors["w"], torch.ones(2))


def test_how_a_run_was_spread_is_read_as_the_run_tells_it(tmp_path):
    layout = Layout(tmp_path)
    machine = Machine(launcher="torchrun", processes=2, zero_stage=3)
    with start_run(layout, "tune", {}) as run:
        run.event(TOLD, **asdict(machine))
        run.record["artifacts"]["artifacts/model"] = "a" * 64
    (origin,) = origins_in(layout)["a" * 64]
    assert (origin.spread["processes"], origin.spread["zero_stage"]) == (2, 3)
