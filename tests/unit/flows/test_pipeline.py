from prefect.states import Completed, Failed, Pending

from flows.deployments import retrain_apart
from flows.pipeline import _troubles, failed, retrain
from uni_moe.errors import ContractError, StageError


class Future:
    def __init__(self, state, result=None):
        self.state, self._result = state, result

    def result(self, *, raise_on_failure):
        assert not raise_on_failure
        return self._result


DONE = Future(Completed())
LATER = Future(Pending())


def test_complete_stages_have_no_troubles():
    assert _troubles({"a": DONE}) == []


def test_a_stage_that_failed_by_itself_speaks_and_those_behind_it_do_not():
    error = StageError("a: no", cause="c", remedy="r")
    assert _troubles({"a": Future(Failed(), error), "b": LATER}) == [error]


def test_a_stage_that_could_not_be_started_is_a_failure():
    (error,) = _troubles({"a": Future(Failed(), OSError(12, "no memory")), "b": LATER})
    assert "a: OSError" in str(error)


def test_stages_that_never_began_are_a_failure():
    (error,) = _troubles({"a": DONE, "b": LATER})
    assert "never begun: b" in str(error)


def test_failures_among_which_a_contract_broke_are_a_broken_contract():
    failure, broken = (StageError(f"{name}: no", cause="c", remedy="r") for name in "ab")
    broken.exit_code = ContractError.exit_code
    assert failed([failure, broken]).exit_code == ContractError.exit_code
    assert failed([failure, failure]).exit_code == StageError.exit_code


def test_prefect_keeps_no_result_of_a_flow():
    assert (retrain.persist_result, retrain_apart.persist_result) == (False, False)
