"""schedule.yaml, and what starts a retraining by having changed."""

import os

import pytest

from flows.orchestrator import Working
from flows.schedule import Pool, Schedule, load_schedule, pool_of
from flows.standing import Standing, is_dead
from flows.watch import Watch, look
from tests.integration.little_home import make_home, new_data
from uni_moe.errors import ConfigError


def test_without_a_file_nothing_begins_by_itself(tmp_path):
    assert load_schedule(tmp_path) == Schedule()
    assert Schedule().cron is None
    assert Schedule().watch == ()


def test_a_schedule_is_read(tmp_path):
    text = "cron: '0 3 * * *'\ntimezone: Europe/Berlin\nwatch: [data, contract]\npool: {at_once: 3}"
    (tmp_path / "schedule.yaml").write_text(text)
    found = load_schedule(tmp_path)
    assert (found.cron, found.timezone) == ("0 3 * * *", "Europe/Berlin")
    assert found.watch == ("data", "contract")
    assert (found.pool.name, found.pool.type, found.pool.at_once) == (None, "process", 3)


def test_runs_of_workspaces_wait_in_pools_of_their_own(tmp_path):
    voices = tmp_path / "voices"
    assert pool_of(Schedule(), voices) == "uni-moe@voices"
    assert pool_of(Schedule(name="other voices"), voices) == "uni-moe@other voices"
    assert pool_of(Schedule(name="other voices", pool=Pool("team")), voices) == "team"


def test_all_problems_of_a_schedule_are_told_at_once(tmp_path):
    text = "cron: daily\ntimezone: Mars/Base\nwatch_every_s: 0\npool: {at_once: 0}"
    (tmp_path / "schedule.yaml").write_text(text)
    with pytest.raises(ConfigError, match="4 problem") as told:
        load_schedule(tmp_path)
    for key in ("cron", "timezone", "watch_every_s", "pool.at_once"):
        assert f"- {key}: " in str(told.value)


@pytest.mark.parametrize("text", ["crons: x", "watch: [code]", "cron: [", "- 1"])
def test_what_cannot_be_read_is_refused(tmp_path, text):
    (tmp_path / "schedule.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load_schedule(tmp_path)


def test_the_first_look_ever_finds_nothing_new(tmp_path):
    watch = Watch(tmp_path / "seen.json", settle_s=0)
    assert watch.changed({"data": "a"}, 0) == []


def test_a_change_counts_when_it_has_stood_still(tmp_path):
    watch = Watch(tmp_path / "seen.json", settle_s=60)
    watch.changed({"data": "a"}, 0)
    assert watch.changed({"data": "b"}, 100) == []
    assert watch.changed({"data": "c"}, 150) == []  # still being copied
    assert watch.changed({"data": "c"}, 209) == []
    assert watch.changed({"data": "c"}, 210) == ["data"]
    watch.remember({"data": "c"})
    assert watch.changed({"data": "c"}, 300) == []


def test_a_change_made_while_nobody_watched_is_found(tmp_path):
    Watch(tmp_path / "seen.json", settle_s=0).changed({"data": "a"}, 0)
    later = Watch(tmp_path / "seen.json", settle_s=0)
    assert later.changed({"data": "b"}, 0) == ["data"]


def test_what_is_watched_for_the_first_time_is_not_new(tmp_path):
    Watch(tmp_path / "seen.json", settle_s=0).changed({"data": "a"}, 0)
    later = Watch(tmp_path / "seen.json", settle_s=0)
    assert later.changed({"data": "a", "contract": "x"}, 0) == []
    assert later.changed({"data": "a", "contract": "y"}, 1) == ["contract"]


def test_data_and_contract_are_told_apart(tmp_path):
    home = make_home(tmp_path / "home")
    before = look(home, ("data", "contract"))
    new_data(home.root, "bb", 0.7)
    after = look(home, ("data", "contract"))
    assert before["contract"] == after["contract"]
    assert before["data"] != after["data"]
    with (home.root / "data_contracts/manifest.yaml").open("a") as file:
        file.write("# stricter\n")
    assert look(home, ("data", "contract"))["contract"] != after["contract"]


def test_a_contract_that_an_editor_is_saving_is_another_one_for_as_long(tmp_path):
    home = make_home(tmp_path / "home")
    before = look(home, ("data", "contract"))
    contract = home.root / "data_contracts/manifest.yaml"
    contract.rename(tmp_path / "saved")
    gone = look(home, ("data", "contract"))
    assert gone["data"] == before["data"]
    assert gone["contract"] != before["contract"]
    (tmp_path / "saved").rename(contract)
    assert look(home, ("data", "contract")) == before


def test_what_the_disk_refuses_is_told_and_the_rest_stands(tmp_path, monkeypatch):
    home, said = make_home(tmp_path / "home"), []
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    folder = tmp_path / "no folder"
    folder.touch()  # so that nothing that was seen can be kept
    standing = Standing(home, Schedule(watch=("contract",)), None, folder, said.append)
    standing._next = {standing._watch: 0.0}
    standing.look_after()
    assert [line.partition(":")[0] for line in said] == ["FileExistsError"]
    standing.look_after()  # not yet due again
    assert len(said) == 1


@pytest.mark.parametrize(
    "pid, silent_s, dead",
    [
        (os.getpid(), 1e6, False),
        (None, 10, False),  # its worker is about to start it
        (None, 1000, True),
        (2**22 + 1, 60, True),  # no machine has this process
        (2**22 + 1, 1, False),
    ],
    ids=["alive", "not begun", "never begun", "gone", "gone just now"],
)
def test_a_run_is_dead_when_its_process_is_gone(pid, silent_s, dead):
    assert is_dead(Working(None, "run", pid, silent_s)) == dead
