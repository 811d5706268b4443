from prefect.states import Completed, Failed, Pending

from flows.pipeline import _troubles
from uni_moe.errors import StageError


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
