"""A flow over a real graph of shell commands: side by side, failing, killed, going on."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import embedded
from flows.dvc import plan_stages
from flows.remote import set_remote
from tests.integration.forked_flow import Flow
from tests.integration.little_home import make_home, new_data
from tests.integration.standing import ask
from tests.stores.front import fronted
from tests.stores.mailbox import webhook
from tests.stores.servers import moto
from tests.stores.workspace import commit, registered_workspace
from tests.unit.registry.workspace import candidate
from uni_moe.artifacts import read_json
from uni_moe.config import load_params
from uni_moe.errors import ConfigError, LineageError
from uni_moe.registry import read
from uni_moe.storage.remote import Remote
from uni_moe.workspace import make_workspace

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 90
GRAPH = """
stages:
  left:
    cmd: sh slow.sh left
    deps: [left.in]
    outs: [left.out]
  right:
    cmd: sh slow.sh right
    deps: [right.in]
    outs: [right.out]
  both:
    cmd: cat left.out right.out > both.out
    deps: [left.out, right.out]
    outs: [both.out]
"""
SLOW = """
echo $$ >> $1.pids
if grep -q bad $1.in; then
  echo "error: The table $1 is broken."
  echo "    - row 3"
  echo "  cause:  a bad row."
  echo "  remedy: mend it."
  exit 4
fi
touch $1.begun
i=0
while [ $i -lt 100 ] && [ ! -e go ]; do sleep 0.1; i=$((i + 1)); done
cat $1.in > $1.out
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One Prefect server for all tests of this file; the flows find it by environment."""
    before = dict(os.environ)
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.pop("PREFECT_HOME", None)
    embedded.settle(tmp_path_factory.mktemp("prefect"))
    yield {**os.environ, "PYTHONPATH": str(REPOSITORY), "UNI_MOE_WORKERS": "2"}
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".dvc").mkdir()
    config = "[core]\n    no_scm = true\n    analytics = false\n"
    (tmp_path / ".dvc" / "config").write_text(config, encoding="utf-8")
    for name, text in {"dvc.yaml": GRAPH, "slow.sh": SLOW}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name in ("left.in", "right.in"):
        (tmp_path / name).write_text(f"{name}\n", encoding="utf-8")
    return tmp_path


def start(
    root: Path, server: dict[str, str], program: str = "little_flow"
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.integration.{program}", str(root)],
        cwd=REPOSITORY,
        env=server,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(flow: subprocess.Popen[str]) -> str:
    try:
        return flow.communicate(timeout=PATIENCE_S)[0]
    finally:
        flow.kill()


def until(*files: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not all(file.exists() for file in files):
        assert time.monotonic() < deadline, f"still missing: {files}"
        time.sleep(0.05)


def begun(root: Path) -> tuple[Path, Path]:
    return root / "left.begun", root / "right.begun"


def alive(root: Path) -> list[int]:
    """Return the shells of stages that still run."""
    found = []
    for file in root.glob("*.pids"):
        for pid in file.read_text(encoding="utf-8").split():
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                continue
            found.append(int(pid))
    return found


def wait_until_nothing_runs(root: Path) -> None:
    deadline = time.monotonic() + 15
    while alive(root):
        assert time.monotonic() < deadline, f"left behind: {alive(root)}"
        time.sleep(0.05)


def test_independent_stages_run_side_by_side_and_a_second_plan_is_empty(
    root: Path, server: dict[str, str]
) -> None:
    assert [stage.name for stage in plan_stages(root).stages] == ["left", "right", "both"]
    flow = start(root, server)
    until(*begun(root))  # both wait for `go`: neither has ended when the other begins
    (root / "go").touch()
    said = finish(flow)
    assert flow.returncode == 0, said
    assert (root / "both.out").read_text(encoding="utf-8") == "left.in\nright.in\n"
    assert plan_stages(root).empty


def test_a_failed_stage_says_its_own_error_and_stops_only_what_follows(
    root: Path, server: dict[str, str]
) -> None:
    (root / "right.in").write_text("bad\n", encoding="utf-8")
    (root / "go").touch()
    flow = start(root, server)
    said = finish(flow)
    assert flow.returncode == 4, said
    assert "error: right: The table right is broken.\n    - row 3\n  cause:  a bad row." in said
    assert "Traceback" not in said
    assert len((root / "right.pids").read_text(encoding="utf-8").split()) == 1  # tried once
    assert (root / "left.out").is_file()
    assert not (root / "both.out").exists()
    assert [stage.name for stage in plan_stages(root).stages] == ["right", "both"]


def test_a_killed_flow_leaves_nothing_running_and_a_second_one_goes_on(
    root: Path, server: dict[str, str]
) -> None:
    flow = start(root, server)
    until(*begun(root))
    flow.kill()
    flow.communicate()
    wait_until_nothing_runs(root)
    (root / "go").touch()
    again = start(root, server)
    said = finish(again)
    assert again.returncode == 0, said
    assert (root / "both.out").is_file()


def test_an_interrupted_flow_ends_its_stages_and_begins_no_other(
    root: Path, server: dict[str, str]
) -> None:
    flow = start(root, server)
    until(*begun(root))
    flow.send_signal(signal.SIGINT)
    said = finish(flow)
    assert flow.returncode != 0, said
    assert alive(root) == []
    assert not (root / "both.out").exists()


SECRET = "PLANTED-secret-of-nobody"
AGAIN = "will start"  # of Prefect's line about another try


def test_a_flow_ends_with_one_push_and_without_a_secret_in_its_logs(
    tmp_path: Path, server: dict[str, str]
) -> None:
    layout = registered_workspace(tmp_path / "here")
    known = {"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": SECRET}
    with moto() as bucket:
        store = bucket.bucket("s3://uni-moe-tests/flow")
        set_remote(layout.root, store.remote)
        flow = start(layout.root, server | known, "whole_flow")
        said = finish(flow)
        assert flow.returncode == 0, said
        champion = read.champion(layout)
        assert champion is not None
        assert store.wrong(f"{champion.model}/model") == []
    (kept,) = layout.runs.glob("*-retrain-*")
    for name in ("params.yaml", "dvc.lock"):
        assert (kept / name).read_bytes() == (layout.root / name).read_bytes()
    assert said.count("data: dvc push") == 1
    assert SECRET not in said
    for folder in (layout.root, Path(os.environ["PREFECT_HOME"])):
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert files
        assert not [file for file in files if SECRET.encode() in file.read_bytes()]


@pytest.mark.operate
def test_a_push_that_fails_leaves_the_verdict_and_says_how_to_go_on(
    tmp_path: Path, server: dict[str, str]
) -> None:
    layout = registered_workspace(tmp_path / "here")
    known = {"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": SECRET}
    set_remote(layout.root, Remote("s3://uni-moe-tests/flow", "http://127.0.0.1:9"))
    flow = start(layout.root, server | known, "whole_flow")
    said = finish(flow)
    assert flow.returncode == 8, said
    assert "its copy did not arrive" in said
    assert "`uni-moe push`" in said
    assert said.count(AGAIN) == 2  # it may answer later
    assert "Traceback" not in said
    assert SECRET not in said
    assert read.champion(layout) is not None


@pytest.mark.operate
def test_a_push_that_the_remote_refuses_is_not_tried_again(
    tmp_path: Path, server: dict[str, str]
) -> None:
    layout = registered_workspace(tmp_path / "here")
    known = {"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": "a wrong one"}
    with moto() as bucket, fronted(bucket) as (front, door):
        store = door.bucket("s3://uni-moe-tests/flow")
        set_remote(layout.root, store.remote)
        front.refusal = (403, "SignatureDoesNotMatch")
        flow = start(layout.root, server | known, "whole_flow")
        said = finish(flow)
    assert flow.returncode == 8, said
    assert "refuses our credentials: SignatureDoesNotMatch" in said
    assert AGAIN not in said
    assert read.champion(layout) is not None


@pytest.mark.operate
def test_a_person_may_tune_the_champion_further_with_other_params(
    tmp_path: Path, server: dict[str, str]
) -> None:
    assert server
    home = make_home(tmp_path / "home")
    told = home.params.read_bytes()
    code, said = Flow(home.root, "champion").end(PATIENCE_S)
    assert (code, "0 versions are registered" in said) == (LineageError.exit_code, True), said
    assert Flow(home.root, "tick").end(PATIENCE_S)[0] == 0
    champion = read.champion(home)
    assert champion is not None
    code, said = Flow(home.root, "champion").end(PATIENCE_S)
    assert code == 0, said
    assert len(read.models(home)) == 2
    run = max(home.runs.glob("*-retrain-*"))
    changes = {"tune.start": champion.model, "seed": 8}
    assert read_json(run / "run.json")["params"] == {"changes": changes}
    params = load_params(run / "params.yaml")
    assert (params.tune.start, params.seed) == (champion.model, 8)
    assert home.params.read_bytes() == told


@pytest.mark.operate
@pytest.mark.parametrize(
    "words, code, what",
    [
        (["--from", "champion", "--set", "seed=8"], LineageError.exit_code, "0 versions are"),
        (["--set", "gate.approvals=0"], ConfigError.exit_code, "cannot be changed for one run"),
    ],
)
def test_the_words_of_a_person_reach_the_retraining(
    tmp_path: Path, words: list[str], code: int, what: str
) -> None:
    space = make_workspace(tmp_path / "space", "smoke")
    names = {name: told for name, told in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-m", "uni_moe", "--workspace", str(space), "retrain", *words],
        env=names | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert what in done.stdout + done.stderr
    assert not (space / "artifacts").exists()


@pytest.mark.operate
def test_people_are_told_of_a_fault_that_nobody_foresaw(
    tmp_path: Path, server: dict[str, str]
) -> None:
    assert server
    home = make_home(tmp_path / "home")
    home.apart.parent.mkdir(parents=True, exist_ok=True)
    home.apart.touch()  # where workspaces apart would lie
    with webhook() as (address, came):
        (home.root / "notify.yaml").write_text(f"webhook: http://{address}/\n", encoding="utf-8")
        code, said = Flow(home.root, "tick").end(PATIENCE_S)
    assert code, said
    assert "Traceback" in said
    ((_, body),) = came
    assert body["kind"] == "failure"
    assert "The retraining was stopped: " in body["what"]


@pytest.mark.operate
def test_a_refusal_is_told_whatever_becomes_of_the_copy(
    tmp_path: Path, server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remote is away, then it is silent and the flow is killed, and the webhook was away."""
    assert server
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    home = make_home(tmp_path / "home")
    waiting = home.state / "news.json"
    assert Flow(home.root, "tick").end(PATIENCE_S)[0] == 0
    alone = (home.root / ".dvc" / "config").read_text(encoding="utf-8")
    with webhook() as (address, came), socket.create_server(("127.0.0.1", 0)) as silent:
        (home.root / "notify.yaml").write_text(f"webhook: http://{address}/\n", encoding="utf-8")
        set_remote(home.root, Remote("s3://uni-moe-tests/flow", "http://127.0.0.1:9"))
        new_data(home.root, "worse", 0.3)
        assert Flow(home.root, "tick").end(2 * PATIENCE_S)[0] == 8
        assert [body["kind"] for _, body in came] == ["refused", "failure"]
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        set_remote(home.root, Remote("s3://uni-moe-tests/flow", endpoint))
        new_data(home.root, "also worse", 0.4)
        flow = Flow(home.root, "tick")
        until(waiting)
        flow.end(0)
        (home.root / ".dvc" / "config").write_text(alone, encoding="utf-8")
        code, said = Flow(home.root, "tick").end(PATIENCE_S)
        assert (code, "nothing to do" in said) == (0, True), said
        assert [body["kind"] for _, body in came] == ["refused", "failure", "refused"]
    assert not waiting.exists()
    runs = list(home.runs.glob("*-retrain-*"))
    assert len(runs) == 3
    assert all((run / "params.yaml").is_file() for run in runs)  # of the killed one, too


@pytest.mark.operate
def test_a_champion_is_judged_in_its_turn_on_the_gpu_and_no_longer_than_a_stage_may(
    tmp_path: Path, server: dict[str, str]
) -> None:
    layout = registered_workspace(tmp_path / "here")
    candidate(layout, "b", 0.9, items="of another day")
    commit(layout)
    (layout.root / "machine.yaml").write_text("gpu_slots: 1\nstage_limit_s: 0.2\n", "utf-8")
    flow = start(layout.root, server, "whole_flow")
    said = finish(flow)
    assert flow.returncode == 0, said
    assert "the champion cannot be judged: judge was ended after 0.2 s." in said
    limits = ask(f"{server['PREFECT_API_URL']}/v2/concurrency_limits/filter")
    assert [(one["name"], one["limit"], one["active_slots"]) for one in limits] == [("gpu", 1, 0)]


TURNS = """
stages:
  experts:
    matrix: {name: [image, video]}
    cmd: sh turn.sh ${item.name}
    deps: [turn.sh]
    outs: ["${item.name}.out"]
"""
TURN = "echo begin >> ../turns; sleep 1; echo end >> ../turns; echo > $1.out\n"


@pytest.mark.operate
def test_stages_of_two_flows_take_turns_on_the_gpu(
    root: Path, tmp_path: Path, server: dict[str, str]
) -> None:
    (root / "machine.yaml").write_text("gpu_slots: 1\n", encoding="utf-8")
    (root / "dvc.yaml").write_text(TURNS, encoding="utf-8")
    (root / "turn.sh").write_text(TURN, encoding="utf-8")
    both = [
        Path(
            shutil.copytree(root, tmp_path / "flows" / name, ignore=shutil.ignore_patterns("flows"))
        )
        for name in "ab"
    ]
    flows = [start(one, server) for one in both]
    for flow in flows:
        said = finish(flow)
        assert flow.returncode == 0, said
    turns = (tmp_path / "flows" / "turns").read_text(encoding="utf-8").split()
    assert turns == ["begin", "end"] * 4
