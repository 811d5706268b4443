"""A workspace that stands: scheduled runs, nothing lost or doubled whatever is killed."""

import time
from datetime import datetime

import pytest

from tests.integration.little_home import HOLD, POINTS, make_home, new_data
from tests.integration.standing import command, family_of, kill_one, standing, until
from tests.stores.mailbox import webhook
from uni_moe.registry import read
from uni_moe.registry.cards import all_runs

pytestmark = pytest.mark.operate
NOTHING_S = 30


@pytest.fixture
def home(tmp_path):
    """A home whose graph is one quick stage; `uni-moe` takes it for a workspace like any."""
    layout = make_home(tmp_path / "home")
    (layout.root / "schedule.yaml").write_text("watch: [data]\nwatch_every_s: 1\nsettle_s: 1\n")
    return layout


def ended(up, count, *types):
    return until(lambda: len(up.runs(*types)) >= count and up.runs(*types), f"{count} {types}")


def points(layout):
    """Return how many metric points the runs of the home's stage have, of those that ended."""
    return [
        sum(1 for _ in (folder / "metrics.jsonl").open())
        for folder, record in all_runs(layout)
        if record["stage"] == "tune" and record["status"] == "done"
    ]


def facts(layout):
    """Return how many registrations and verdicts there are, and what is champion."""
    champion = read.champion(layout)
    found = [len(list(layout.runs.glob(f"*/{name}.json"))) for name in ("registration", "verdict")]
    return (*found, champion and champion.number)


def test_a_home_that_stands_says_where_and_refuses_a_second_start(home):
    with standing(home.root) as up:
        for name in ("api", "page", "server", "worker", "server log", "pool"):
            assert up.facts[name]
        assert "stands already" in command(home.root, "up", "1", code=6)
        assert len(family_of(up.process.pid)) >= 2
    assert not up.file.exists()


def test_new_data_and_a_persons_word_start_retrainings_and_a_third_finds_nothing(home):
    with standing(home.root) as up:
        command(home.root, "retrain", "first", "--wait")
        assert facts(home) == (1, 1, 1)
        new_data(home.root, "b", 0.9)
        ended(up, 2, "COMPLETED")
        assert facts(home) == (2, 2, 2)
        assert "new data" in read.models(home)[-1].reason
        begin = time.monotonic()
        said = command(home.root, "retrain", "by hand", "--wait")
        assert "nothing to do" in said
        assert time.monotonic() - begin < NOTHING_S
        assert facts(home) == (2, 2, 2)
    kept = {run.parent.name for run in home.runs.glob("*-retrain-*/dvc.lock")}
    assert len(kept) == 2
    assert points(home) == [POINTS] * 2


def test_cron_schedules_runs(home):
    (home.root / "schedule.yaml").write_text("cron: '* * * * *'\n")
    with standing(home.root) as up:
        scheduled = until(lambda: up.runs("SCHEDULED"), "scheduled runs")
        assert len(scheduled) > 1
        times = [datetime.fromisoformat(run["expected_start_time"]) for run in scheduled]
        assert all(time.second == 0 for time in times)
        ended(up, 1, "COMPLETED")
        assert facts(home) == (1, 1, 1)
        second = ended(up, 2, "COMPLETED")[1]
        assert second["state"]["message"] == "nothing to do"
        assert second["total_run_time"] < NOTHING_S
        assert facts(home) == (1, 1, 1)


def flow_of(up):
    """Return the process of the flow run that is at work."""
    (run,) = up.runs("RUNNING")
    return int(run["infrastructure_pid"])


KILLS = {
    "flow": lambda up: [flow_of(up)],
    "worker": lambda up: [up.facts["worker"]],
    "worker and flow": lambda up: [up.facts["worker"], flow_of(up)],
    "server": lambda up: [up.facts["server"]],
}


@pytest.mark.parametrize("what", KILLS)
def test_whatever_is_killed_in_the_middle_nothing_is_lost_or_doubled(home, what):
    (home.root / HOLD).touch()
    with standing(home.root) as up:
        command(home.root, "retrain", "first")
        until((home.root / "begun").exists, "a stage at work")
        until(lambda: up.runs("RUNNING") and up.runs("RUNNING")[0]["infrastructure_pid"], "a pid")
        (run,) = up.runs("RUNNING")
        stages = [one for one in family_of(up.process.pid) if "little_home" in str(one.cmdline())]
        for pid in KILLS[what](up):
            kill_one(pid)
        killed = time.monotonic()
        if what == "server":  # it comes back, and the flow has not noticed
            (home.root / HOLD).unlink()
            done = ended_whatever_it_takes(up, run["id"])
            assert done == "COMPLETED"
        else:
            assert ended_whatever_it_takes(up, run["id"]) == "CRASHED"
            assert time.monotonic() - killed < 60  # two heartbeats
            assert not [one for one in stages if one.is_running() and one.status() != "zombie"]
            (home.root / HOLD).unlink()
            command(home.root, "retrain", "again", "--wait")
        assert facts(home) == (1, 1, 1)
        assert points(home) == [POINTS]
        assert not [record for _, record in all_runs(home) if record["status"] == "running"]
        assert up.process.poll() is None


def ended_whatever_it_takes(up, run):
    """Return the type of the state in which a flow run ends, also while its server is away."""

    def final():
        try:
            found = [one for one in up.runs() if one["id"] == run]
        except OSError:
            return None
        state = found[0]["state_type"]
        return state if state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    return until(final, "the end of a flow run")


def test_a_home_that_was_killed_stands_again_and_goes_on(home):
    (home.root / HOLD).touch()
    with standing(home.root) as up:
        command(home.root, "retrain", "first")
        until((home.root / "begun").exists, "a stage at work")
        (run,) = until(lambda: up.runs("RUNNING"), "a run")
        up.kill()
    (home.root / HOLD).unlink()
    with standing(home.root, up.port) as again:
        assert ended_whatever_it_takes(again, run["id"]) == "CRASHED"
        command(home.root, "retrain", "again", "--wait")
        assert facts(home) == (1, 1, 1)
        assert points(home) == [POINTS]


def test_two_runs_at_once_make_what_they_make_one_after_the_other(home, tmp_path):
    words = ("retrain", "eight", "seed=8"), ("retrain", "nine", "seed=9")
    (home.root / HOLD).touch()
    with standing(home.root) as up:
        for told in words:
            command(home.root, *told)
        until(lambda: len(up.runs("RUNNING")) == 2, "two at once")
        (home.root / HOLD).unlink()
        ended(up, 2, "COMPLETED")
    after = make_home(tmp_path / "after")
    for told in words:
        command(after.root, *told)
    assert contents(home) == contents(after)
    assert points(home) == points(after)


def contents(layout):
    """Return every file of every registered model, by its content."""
    return {
        file.relative_to(layout.store).as_posix(): file.read_bytes()
        for file in layout.store.rglob("*")
        if file.is_file() and "/model/" in file.as_posix()
    }


def test_people_are_told_of_a_refused_model_and_no_log_holds_the_secret(home):
    secret = "PLANTED-secret-of-nobody"
    with webhook() as (address, came):
        (home.root / "notify.yaml").write_text(f"webhook: http://{address}/{secret}\n")
        with standing(home.root) as up:
            command(home.root, "retrain", "by hand", "--wait")
            new_data(home.root, "worse", 0.3)
            ended(up, 2, "COMPLETED")
            until(lambda: came, "a message")
    assert [body["kind"] for _, body in came] == ["refused"]
    files = [file for file in home.root.rglob("*") if file.is_file() and not file.is_symlink()]
    holding = [file.name for file in files if secret.encode() in file.read_bytes()]
    assert set(holding) == {"notify.yaml"}
