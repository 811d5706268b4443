"""A run judges by the rules that its home has at that moment, whatever its own params say."""

import pytest
from prefect.logging import disable_run_logger

from flows.apart import apart
from flows.deployments import _whatever_is_new
from flows.tasks import promote_if_better
from tests.integration.little_home import environment, make_home
from tests.stores.workspace import commit
from tests.unit.registry.workspace import candidate
from uni_moe.config import load_params
from uni_moe.registry import promoting, write


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    home = make_home(tmp_path / "home")
    candidate(home, "a", 0.7)
    commit(home)
    return home


def ask_for(layout, approvals):
    """Let params ask for so many approvals."""
    text = layout.params.read_text()
    known = load_params(layout.params).gate.approvals
    changed = text.replace(f"approvals: {known}", f"approvals: {approvals}")
    assert changed != text
    layout.params.write_text(changed)


def test_approvals_that_the_home_asks_for_are_asked_for_apart(home):
    with apart(home, {}) as space:
        made = write.register(space, reason="a test", who="ada")
        ask_for(home, 2)  # since the run began
        verdict = promote_if_better.fn(str(space.root), "a test", made)
    assert not verdict.promoted
    assert verdict.evidence["waits"] == 2
    assert verdict.evidence["rules"]["approvals"] == 2


def test_what_was_judged_by_the_rules_of_the_home_is_not_judged_again(home):
    with apart(home, {}) as space, disable_run_logger():
        made = write.register(space, reason="a test", who="ada")
        ask_for(home, 2)
        promoting.promote_if_better(space, made, load_params(home.params).gate)
        assert _whatever_is_new(space, "a test", {}) is None
