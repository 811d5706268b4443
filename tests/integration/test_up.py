"""A workspace that stands: scheduled runs, and nothing lost or doubled whatever is killed."""

import shutil
import time
from datetime import datetime
from itertools import count

import pytest

from tests.integration.little_home import HOLD, POINTS, make_home, new_data
from tests.integration.standing import command, family_of, kill_one, standing, until
from tests.stores.mailbox import webhook
from uni_moe.registry import read
from uni_moe.registry.cards import all_runs

pytestmark = pytest.mark.operate
NOTHING_S = 30
TWO_HEARTBEATS_S = 60
WATCHING = "watch: [data, contract]\nwatch_every_s: 1\nsettle_s: 1\n"
numbers = count(1)


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """One home that stands for most tests, and retrains when its data change."""
    home = make_home(tmp_path_factory.mktemp("stands") / "home", "0", 0.5)
    (home.root / "schedule.yaml").write_text(WATCHING)
    with standing(home.root) as up:
        command(home.root, "retrain", "first", "--wait")
        yield up


@pytest.fixture
def home(up):
    """The home of before, with what it has registered by now."""
    return up.layout


def other_data(home):
    """Give a home data of which another model comes."""
    new_data(home.root, str(next(numbers)), 0.5)


def stricter(home):
    """Change a home's contract, and what its models come out as."""
    with (home.root / "data_contracts/manifest.yaml").open("a") as file:
        file.write("# stricter\n")


def facts(layout):
    """Return how many registrations, verdicts and whole trainings there are.

    Raises:
        AssertionError: a training that ended has lost or doubled a metric.
    """
    found = [len(list(layout.runs.glob(f"*/{name}.json"))) for name in ("registration", "verdict")]
    trained = [
        len((folder / "metrics.jsonl").read_text().splitlines())
        for folder, record in all_runs(layout)
        if record["stage"] == "tune" and record["status"] == "done"
    ]
    assert set(trained) <= {POINTS}
    return (*found, len(trained))


def one_more(before):
    """Return the facts after one more model was trained, registered and judged."""
    return tuple(number + 1 for number in before)


def ended(up, run):
    """Return the state in which a flow run ends, also while its server is away."""

    def final():
        (found,) = [one for one in up.runs() if one["id"] == run]
        return found["state"] if found["end_time"] else None

    return until(final, "the end of a flow run")


def at_work(up, how_many=1):
    """Return the flow runs that are at work, as soon as there are so many with a process."""

    def found():
        runs = [run for run in up.runs("RUNNING") if run["infrastructure_pid"]]
        return len(runs) == how_many and runs

    return until(found, f"{how_many} at work")


@pytest.mark.parametrize(
    "what, change",
    [("new data", other_data), ("contract changed", stricter)],
    ids=["data", "contract"],
)
def test_a_change_starts_a_retraining_and_a_persons_word_then_finds_nothing(up, home, what, change):
    before = facts(home)
    change(home)
    until(lambda: facts(home) == one_more(before) and not up.runs("RUNNING"), "a new model")
    assert read.models(home)[-1].reason.startswith(what)
    assert "nothing to do" in command(home.root, "retrain", "by hand", "--wait")
    last = max(up.runs("COMPLETED"), key=lambda run: run["start_time"])
    assert last["total_run_time"] < NOTHING_S
    assert facts(home) == one_more(before)
    kept = [file.parent for file in home.runs.glob("*-retrain-*/dvc.lock")]
    assert len(kept) == len(read.models(home))
    assert all((folder / "params.yaml").is_file() for folder in kept)


@pytest.mark.parametrize("what", ["flow", "worker", "worker and flow", "server"])
def test_whatever_is_killed_in_the_middle_nothing_is_lost_or_doubled(up, home, what):
    before = facts(home)
    (home.root / "begun").unlink(missing_ok=True)
    (home.root / HOLD).touch()
    other_data(home)
    until((home.root / "begun").exists, "a stage at work")
    (run,) = at_work(up)
    stages = [one for one in family_of(up.process.pid) if "little_home" in str(one.cmdline())]
    flow = int(run["infrastructure_pid"])
    pids = {"flow": [flow], "worker": [up.worker], "server": [up.server]}
    for pid in pids.get(what) or [up.worker, flow]:
        kill_one(pid)
    killed = time.monotonic()
    if what == "server":  # it comes back, and the flow goes on
        (home.root / HOLD).unlink()
        assert ended(up, run["id"])["type"] in ("COMPLETED", "CRASHED")  # as long as that took
    else:
        assert ended(up, run["id"])["type"] == "CRASHED"
        assert time.monotonic() - killed < TWO_HEARTBEATS_S
        assert not [one for one in stages if one.is_running() and one.status() != "zombie"]
        (home.root / HOLD).unlink()
    command(home.root, "retrain", "again", "--wait")
    assert facts(home) == one_more(before)
    assert not [folder for folder, record in all_runs(home) if record["status"] == "running"]
    assert up.process.poll() is None


def test_two_runs_at_once_make_what_they_make_one_after_the_other(up, home, tmp_path):
    words = ("retrain", "eight", "seed=8"), ("retrain", "nine", "seed=9")
    known, before = {version.model for version in read.models(home)}, facts(home)
    ended_before = {run["id"] for run in up.runs()}
    (home.root / HOLD).touch()
    for told in words:
        command(home.root, *told)
    at_work(up, 2)
    until(lambda: len(tunings(home, "running")) == 2, "two trainings at once")
    (home.root / HOLD).unlink()
    until(lambda: not up.runs("RUNNING", "PENDING", "SCHEDULED"), "their end")
    states = [run["state"]["name"] for run in up.runs() if run["id"] not in ended_before]
    assert states == ["Completed"] * 2
    assert facts(home) == one_more(one_more(before))
    after = make_home(tmp_path / "after")
    for name in ("data/raw.json", "data_contracts/manifest.yaml"):
        shutil.copy(home.root / name, after.root / name)
    for told in words:
        command(after.root, *told)  # here and now, with no server that knows it
    ours = {key: value for key, value in contents(home).items() if key.split("/")[0] not in known}
    assert ours == contents(after)
    assert facts(after) == (2, 2, 2)


def tunings(layout, status):
    return [
        folder
        for folder, record in all_runs(layout)
        if record["stage"] == "tune" and record["status"] == status
    ]


def contents(layout):
    """Return every file of every registered model and its report, by its content."""
    return {
        file.relative_to(layout.store).as_posix(): file.read_bytes()
        for file in layout.store.rglob("*")
        if file.is_file() and file.parent.name.startswith(("model", "report-"))
    }


def test_people_are_told_once_of_a_failure_and_of_a_broken_contract(up, home):
    before = facts(home)
    with webhook() as (address, came):
        (home.root / "notify.yaml").write_text(f"webhook: http://{address}/\n")
        new_data(home.root, "broken", 0.5, breaks=3)
        until(lambda: len(came) == 1, "a message")
        assert "The data are broken." in command(home.root, "retrain", "again", "--wait", code=6)
        new_data(home.root, "broken", 0.5, breaks=4)
        until(lambda: len(came) == 2, "another message")
        (home.root / "notify.yaml").unlink()
    assert [body["kind"] for _, body in came] == ["failure", "contract"]
    for _, body in came:
        assert body["reason"] == "new data"
        assert "remedy: mend them." in body["details"]
    other_data(home)
    until(lambda: facts(home) == one_more(before) and not up.runs("RUNNING"), "a new model")


def test_people_are_told_of_a_refused_model_and_no_log_holds_the_secret(home):
    secret = "PLANTED-secret-of-nobody"
    with webhook() as (address, came):
        (home.root / "notify.yaml").write_text(f"webhook: http://{address}/{secret}\n")
        new_data(home.root, "worse", 0.3)
        until(lambda: came, "a message")
    assert [body["kind"] for _, body in came] == ["refused"]
    (home.root / "notify.yaml").unlink()
    files = [file for file in home.root.rglob("*") if file.is_file() and not file.is_symlink()]
    assert not [file for file in files if secret.encode() in file.read_bytes()]


def test_a_home_says_where_it_stands_refuses_a_second_start_and_runs_by_cron(tmp_path):
    home = make_home(tmp_path / "home")
    (home.root / "schedule.yaml").write_text("cron: '* * * * *'\n")
    with standing(home.root) as up:
        for name in ("api", "page", "server", "worker", "server log", "pool", "cron"):
            assert up.facts[name]
        assert "stands already" in command(home.root, "up", "1", code=6)
        scheduled = until(lambda: up.runs("SCHEDULED"), "scheduled runs")
        times = [datetime.fromisoformat(run["expected_start_time"]) for run in scheduled]
        assert len(times) > 1
        assert all(time.second == 0 for time in times)
        done = until(lambda: len(up.runs("COMPLETED")) >= 2 and up.runs("COMPLETED"), "two ticks")
        assert facts(home) == (1, 1, 1)
        assert done[1]["state"]["message"] == "nothing to do"
        assert done[1]["total_run_time"] < NOTHING_S
    assert not up.file.exists()


def test_a_home_that_was_killed_stands_again_and_goes_on(tmp_path):
    home = make_home(tmp_path / "home")
    (home.root / HOLD).touch()
    with standing(home.root) as up:
        command(home.root, "retrain", "first")
        until((home.root / "begun").exists, "a stage at work")
        (run,) = at_work(up)
        up.kill()
    (home.root / HOLD).unlink()
    with standing(home.root, up.port) as again:
        assert ended(again, run["id"])["type"] == "CRASHED"
        command(home.root, "retrain", "again", "--wait")
        assert facts(home) == (1, 1, 1)
