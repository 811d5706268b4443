"""Where and when stages are killed, and what is said of it; real kills stand in integration."""

import yaml

from benchmarks.killing import AT_ANY_TIME, Kill, Outcome
from benchmarks.kills import case_of, draw, names, smallest
from tests.house.code_deps import ROOT
from tests.integration.test_smallest_road import declared_params
from uni_moe.cli_stages import STAGES
from uni_moe.config import parse_params

LASTS = {("ingest", 1): 2.0, ("align@audio", 1): 5.0, ("align@audio", 2): 9.0, ("tune", 2): 0.0}
IN_A_STATE, IN_AN_ARTIFACT = "while a state is written", "while an artifact is written"


def test_kills_are_drawn_in_proportion_to_what_stages_take():
    found = draw(4000, 3, LASTS)
    assert found == draw(4000, 3, LASTS) != draw(4000, 4, LASTS)
    counts = {at: len(kills) for at, kills in found.items()}
    assert sum(counts.values()) == 4000
    assert list(counts) == list(LASTS)
    assert counts["tune", 2] == 1  # every stage is struck once, whatever it takes
    assert 1.6 < counts["align@audio", 2] / counts["align@audio", 1] < 2.0


def test_trainings_are_killed_while_states_are_written_and_nothing_else_is():
    found = draw(2000, 0, LASTS)
    kinds = {at: {kill.when for kill in kills} for at, kills in found.items()}
    assert kinds["ingest", 1] == {AT_ANY_TIME, IN_AN_ARTIFACT}
    assert kinds["align@audio", 2] == {AT_ANY_TIME, IN_A_STATE, IN_AN_ARTIFACT}
    assert all(0 <= kill.share < 1 for kills in found.values() for kill in kills)
    assert isinstance(found["ingest", 1][0], Kill)


def test_all_stages_are_run_in_an_order_that_can():
    order = names(STAGES)
    assert set(order) == set(declared_params())
    for before, after in (("ingest", "validate"), ("align@speech", "experts@video")):
        assert order.index(before) < order.index(after)
    assert order[-3:] == ["assemble", "tune", "evaluate"]


def test_the_recipe_is_small_and_keeps_a_state_after_every_step():
    recipe = yaml.safe_load((ROOT / "uni_moe/recipes/smoke.yaml").read_text())
    params = parse_params(smallest(recipe))
    assert params.tune.save_every_steps == params.align["audio"].save_every_steps == 1
    assert params.tune.steps == 6


def outcome(stage, others):
    killed = [AT_ANY_TIME, IN_A_STATE]
    return Outcome(stage, 2, others=others, killed=killed, drafts=1, went_on=2, seconds=8.0)


def test_other_bytes_are_told_by_their_stage():
    case = case_of([outcome("tune", 0), outcome("align@audio", 2)])
    number, missed = case.numbers
    assert missed.value == 0.0
    assert case.missed("any machine")
    assert number.value == 2.0
    assert number.facts["other_bytes"] == ["align@audio"]
    told = [number.facts[name] for name in ("kills", "left_a_draft", "went_on_from_a_state")]
    assert told == [4, 2, 4]
    assert number.facts["seconds_a_kill"] == 4.0
    assert number.facts["when"] == {AT_ANY_TIME: 2, IN_A_STATE: 2}
    assert not case_of([outcome("tune", 0)]).missed("any machine")


def test_kills_that_never_struck_are_told_and_miss_the_bar():
    case = case_of([Outcome("tune", 1, killed=[AT_ANY_TIME], missed=1)])
    assert [number.reached("any machine") for number in case.numbers] == [True, False]
