"""Housekeeping knows workspaces of scheduled runs, and those that versions were restored into."""

import os
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from flows.apart import apart
from flows.dvc import data_at_rest, plan_stages
from flows.housekeeping import do_gc, plan_gc
from flows.restore import restore
from tests.integration.little_home import environment, make_home
from tests.stores.workspace import commit, named_by
from tests.unit.registry.workspace import RULES, candidate
from uni_moe.alone import only_one
from uni_moe.artifacts import Layout
from uni_moe.audit import Asked
from uni_moe.errors import StageError
from uni_moe.housekeeping.apart import old_apart
from uni_moe.machine import Machine, RetentionSettings
from uni_moe.registry.graphs import keep_graph
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register

ADA = Asked("ada", "the disk is small")
RULES_OF_30_DAYS = Machine(retention=RetentionSettings(5, 2, 30.0))
DAY_S = 86_400.0


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    layout = make_home(tmp_path / "home")
    version(layout, "a")
    return layout


def version(layout, weights):
    candidate(layout, weights, 0.7)
    commit(layout)
    promote_if_better(layout, register(layout, reason=weights, who="ada"), RULES)
    keep_graph(layout)


def cached(layout):
    files = layout.root / ".dvc/cache/files/md5"
    return {file.parent.name + file.name for file in files.glob("*/*")}


def silent(_line):
    """Hear nothing."""


def age(folder, days):
    at_s = time.time() - days * DAY_S
    for file in (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()):
        os.utime(file, (at_s, at_s))


def put(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"left over")
    return file


@pytest.fixture
def space(home):
    """The workspace of a run that was killed when it had made data that nobody registered."""
    with suppress(RuntimeError), apart(home, {}) as space:
        candidate(space, "b", 0.6)
        commit(space)
        raise RuntimeError
    return space


def test_a_workspace_that_no_run_came_back_to_goes_with_its_data(home, space):
    own = named_by(home.root / "dvc.lock", home.root / ".dvc/cache/files/md5")
    both = cached(home)
    assert own < both
    age(home.apart, 31)
    plan = plan_gc(home.root, RULES_OF_30_DAYS, remote=False)
    (told,) = [one for one in plan.goes if one.kind == "apart"]
    assert told.name == "state/apart/1"
    assert "no run came back" in told.why
    do_gc(home.root, RULES_OF_30_DAYS, ADA, remote=False)
    assert not home.apart.exists()
    assert cached(home) == own
    assert plan_stages(home.root).empty
    with apart(home, {}) as again:
        assert again.root == space.root
        assert plan_stages(again.root).empty


def test_a_young_one_loses_only_old_states_and_drafts(home, space):
    both = cached(home)
    old, young, draft = (
        put(space.state / f"tune-{'0' * 16}" / "step-00000005" / "state.json"),
        put(space.state / f"tune-{'1' * 16}" / "step-00000005" / "state.json"),
        put(space.artifacts / f".model.{'0' * 32}" / "content.bin"),
    )
    age(old.parent, 31)
    assert old_apart(home, datetime.now(UTC) - timedelta(days=30)) == []
    do_gc(home.root, RULES_OF_30_DAYS, ADA, remote=False)
    assert [file.exists() for file in (old, young, draft)] == [False, True, False]
    assert (space.root / "dvc.lock").is_file()
    assert cached(home) == both


def test_what_a_restored_workspace_made_stays(home, tmp_path):
    back = Layout(restore(home, "1", tmp_path / "back", silent).folder)
    lock, cache = back.root / "dvc.lock", home.root / ".dvc/cache/files/md5"
    before = lock.read_text()
    version(back, "c")
    registered = named_by(lock, cache)
    candidate(back, "d", 0.6)
    commit(back)
    apart_from_it = named_by(lock, cache)
    (back.apart / "1" / "w").mkdir(parents=True)
    lock.rename(back.apart / "1" / "w" / "dvc.lock")
    lock.write_text(before)
    do_gc(home.root, RULES_OF_30_DAYS, ADA, remote=False)
    assert registered | apart_from_it <= cached(home)


def test_what_a_workspace_made_that_was_restored_from_a_restored_one_stays(home, tmp_path):
    first = Layout(restore(home, "1", tmp_path / "first", silent).folder)
    version(first, "c")
    second = Layout(restore(first, "1", tmp_path / "second", silent).folder)
    candidate(second, "d", 0.6)
    commit(second)
    made = named_by(second.root / "dvc.lock", home.root / ".dvc/cache/files/md5")
    assert not made <= named_by(first.root / "dvc.lock", home.root / ".dvc/cache/files/md5")
    (second.sharing).mkdir(parents=True)
    (second.sharing / "back").symlink_to(first.root)  # a ring leads nowhere
    do_gc(home.root, RULES_OF_30_DAYS, ADA, remote=False)
    assert made <= cached(home)


def test_nothing_is_removed_while_a_workspace_that_shares_the_cache_is_at_work(home, tmp_path):
    back = Layout(restore(home, "1", tmp_path / "back", silent).folder)
    with only_one(back, "tune"), pytest.raises(StageError, match="tune"):
        plan_gc(home.root, RULES_OF_30_DAYS, remote=False)
    with data_at_rest(back.root), pytest.raises(StageError, match="in use"):
        plan_gc(home.root, RULES_OF_30_DAYS, remote=False)
    plan_gc(home.root, RULES_OF_30_DAYS, remote=False)
