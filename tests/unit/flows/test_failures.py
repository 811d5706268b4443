"""A retraining that fails as before is told to people once."""

import pytest

from flows.failures import forget, is_known, remember
from tests.integration.little_home import make_home, new_data
from uni_moe.errors import StageError, StoreError

ASKED = {"start": "scratch", "changes": {}}
ERROR = StageError("tune: no memory\n  step 7", cause="c", remedy="r")


def told(home, asked, error):
    """Do what a retraining does: say whether it is known, and remember it."""
    known = is_known(home, asked, error)
    remember(home, asked, error)
    return known


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path / "home")


def test_what_failed_so_before_told(home):
    assert not told(home, ASKED, ERROR)
    assert told(home, ASKED, ERROR)
    later = StageError("tune: no memory\n  step 9", cause="c", remedy="r")
    assert told(home, ASKED, later)


def test_another_failure_is_news(home):
    told(home, ASKED, ERROR)
    assert not told(home, ASKED, StoreError("no room", cause="c", remedy="r"))
    assert not told(home, ASKED, ERROR)


def test_what_was_asked_for_otherwise_is_news_of_its_own(home):
    told(home, ASKED, ERROR)
    assert not told(home, {**ASKED, "changes": {"seed": 8}}, ERROR)
    assert told(home, ASKED, ERROR)


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", "data_contracts/manifest.yaml"])
def test_the_same_failure_is_news_after_a_change(home, name):
    told(home, ASKED, ERROR)
    with (home.root / name).open("a") as file:
        file.write("# changed\n")
    assert not told(home, ASKED, ERROR)
    assert told(home, ASKED, ERROR)


def test_the_same_failure_is_news_after_other_data_and_after_a_success(home):
    told(home, ASKED, ERROR)
    new_data(home.root, "other", 0.71)
    assert not told(home, ASKED, ERROR)
    forget(home, ASKED)
    assert not told(home, ASKED, ERROR)


def test_params_that_cannot_be_read_fail_in_a_known_way_too(home):
    home.params.write_text("seed: [")
    assert not told(home, ASKED, ERROR)
    assert told(home, ASKED, ERROR)


def test_what_people_were_not_told_of_is_not_known(home):
    assert not is_known(home, ASKED, ERROR)
    assert not is_known(home, ASKED, ERROR)
