"""A Prefect server that others share: what is ours there is ended and told, theirs left alone."""

import subprocess
import sys
import time

import pytest

from flows.embedded import HEARTBEAT, TAG, Server, free_port
from tests.integration.little_home import HOLD, environment, make_home
from tests.integration.standing import ask, command, kill_one, standing, until
from tests.stores.mailbox import webhook

pytestmark = pytest.mark.operate
WITHIN_S = 60
LOOK_S = 5  # a worker asks its pool so often
BEAT = "prefect.flow-run.heartbeat"
# As earlier versions registered it: it ended whatever is silent for 58 s.
GREEDY = {
    "name": "uni-moe: crashed, for no heartbeat",
    "trigger": {
        "type": "event",
        "after": [BEAT],
        "expect": [BEAT, "prefect.flow-run.Completed"],
        "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
        "for_each": ["prefect.resource.id"],
        "posture": "Proactive",
        "threshold": 1,
        "within": 58,
    },
    "actions": [{"type": "change-flow-run-state", "state": "CRASHED", "name": "Crashed"}],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that is none of `uni-moe up`, which is told of it."""
    folder = tmp_path_factory.mktemp("prefect")
    server = Server(folder, free_port(), {"PREFECT_HOME": str(folder)})
    try:
        server.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PREFECT_API_URL", server.url)
            yield server
    finally:
        server.end()


@pytest.fixture
def foreign(tmp_path, server):
    """A flow of others on the same server; its heart beats as seldom as Prefect's do."""
    assert server.process.poll() is None
    names = {name: value for name, value in environment().items() if name not in HEARTBEAT}
    words = [sys.executable, "-m", "tests.integration.foreign_flow", str(tmp_path / "begun")]
    process = subprocess.Popen(words, env=names | {"PREFECT_HOME": str(tmp_path / "theirs")})
    try:
        until((tmp_path / "begun").exists, "the foreign flow")
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_dead_run_is_ended_and_told_once_and_a_foreign_one_lives_on(tmp_path, server, foreign):
    home = make_home(tmp_path / "home")
    (home.root / HOLD).touch()
    ask(f"{server.url}/automations/", **GREEDY)
    with webhook() as (address, came):
        (home.root / "notify.yaml").write_text(f"webhook: http://{address}/\n")
        with standing(home.root, server.port) as up:
            (known,) = up.ask("/automations/filter")
            assert known["trigger"]["match_related"]["prefect.resource.id"] == [
                f"prefect.tag.{TAG}"
            ]
            for deployment in up.ask("/deployments/filter"):
                assert deployment["job_variables"]["env"] == HEARTBEAT
            command(home.root, "retrain", "first")
            until((home.root / "begun").exists, "a stage at work")
            (run,) = until(lambda: up.runs("RUNNING"), "a run at work")
            for pid in (up.worker, int(run["infrastructure_pid"])):
                kill_one(pid)
            killed = time.monotonic()
            (crashed,) = until(lambda: up.runs("CRASHED"), "its end", 2 * WITHIN_S)
            assert time.monotonic() - killed < WITHIN_S
            assert crashed["state"]["message"] == "its heartbeat stopped"
            until(lambda: came, "a message")
            (theirs,) = up.ask("/flow_runs/filter", flows={"name": {"any_": ["foreign"]}})
            assert theirs["state"]["type"] == "RUNNING"
            (tmp_path / "go").touch()
            assert foreign.wait(60) == 0
        with standing(home.root, server.port) as again:  # which looks before it says so
            assert again.ask("/automations/filter") == [known]  # it may listen for a dead one
    assert [body["kind"] for _, body in came] == ["died"]


def test_a_pool_of_another_type_is_registered_and_its_workers_are_started_elsewhere(
    tmp_path, server
):
    home = make_home(tmp_path / "team")
    pool = "pool: {name: team, type: docker, environment: {CITY: Rome}}\n"
    (home.root / "schedule.yaml").write_text(f"cron: '0 3 * * *'\n{pool}")
    with standing(home.root, server.port) as up:
        start = "prefect worker start --pool team --type docker"
        assert up.facts["worker"] == f"none here; start it by `{start}`"
        (known,) = up.ask("/work_pools/filter", work_pools={"name": {"any_": ["team"]}})
        assert (known["type"], known["concurrency_limit"]) == ("docker", 2)
        assert known["base_job_template"] == {}  # its first worker brings its own
        every = {one["name"]: one for one in up.ask("/deployments/filter")}
        told = {name: one for name, one in every.items() if name.endswith("@team")}
        assert set(told) == {"by-schedule@team", "by-hand@team"}
        for one in told.values():
            assert one["work_pool_name"] == "team"
            assert one["job_variables"] == {"env": {"CITY": "Rome", **HEARTBEAT}}
            assert one["parameters"]["home"] == str(home.root)
        (when,) = told["by-schedule@team"]["schedules"]
        assert when["schedule"]["cron"] == "0 3 * * *"
        command(home.root, "retrain", "by hand")
        ours = [run for run in up.runs() if run["deployment_id"] == told["by-hand@team"]["id"]]
        assert ours[-1]["work_pool_name"] == "team"
    (home.root / "schedule.yaml").write_text(pool.replace("docker", "process"))
    said = command(home.root, "up", str(server.port), code=2)
    assert "is of the type docker" in said


def test_workspaces_that_share_a_server_leave_each_other_alone(tmp_path, server):
    mine, theirs = (make_home(tmp_path / who / "voices") for who in ("mine", "theirs"))
    (mine.root / "schedule.yaml").write_text("cron: '0 3 * * *'\n")
    with standing(mine.root, server.port):
        said = command(theirs.root, "up", str(server.port), code=2)
        assert f"of another workspace, {mine.root}" in said
        (theirs.root / "schedule.yaml").write_text("name: other voices\n")
        with standing(theirs.root, server.port) as up:
            found = up.ask("/deployments/filter")
            pools = {one["name"]: one["work_pool_name"] for one in found}
        command(theirs.root, "retrain", "first", server=server.url)
        (theirs_too,) = [one["id"] for one in found if one["name"] == "by-hand@other voices"]
        time.sleep(3 * LOOK_S)
        (run,) = [one for one in up.runs() if one["deployment_id"] == theirs_too]
        assert run["state"]["type"] == "SCHEDULED"  # nobody else's worker takes it
        with standing(theirs.root, server.port) as up:
            until(lambda: run["id"] in [one["id"] for one in up.runs("COMPLETED")], "its end")
    assert pools["by-hand@voices"] == "uni-moe@voices"
    assert pools["by-hand@other voices"] == "uni-moe@other voices"
    homes = {one["name"]: (one["parameters"]["home"], len(one["schedules"])) for one in found}
    assert homes["by-schedule@voices"] == (str(mine.root), 1)
    assert homes["by-schedule@other voices"] == (str(theirs.root), 0)
    assert homes["by-hand@other voices"] == (str(theirs.root), 0)
