"""The database or the bucket's server is killed in the middle of a run; the next one completes."""

import os
import shutil
import threading
import time

import pytest

from flows import embedded
from flows.remote import push, set_remote
from tests.integration.forked_flow import Flow
from tests.integration.little_home import HOLD, POINTS, REPOSITORY, make_home, new_data
from tests.stores.database_front import database_front
from tests.stores.front import fronted
from tests.stores.postgres import postgres_server
from tests.stores.servers import swift
from tests.stores.workspace import data_of_versions, register_one
from tests.unit.registry.workspace import tables
from uni_moe.audit_evidence import audited
from uni_moe.errors import StoreError
from uni_moe.registry import read
from uni_moe.registry.indexing import rebuild
from uni_moe.storage.dvc_data import data_of
from uni_moe.storage.dvc_names import object_of
from uni_moe.storage.remote import read_remote

pytestmark = [pytest.mark.operate, pytest.mark.usefixtures("prefect")]
PATIENCE_S = 180
DEATHS = (
    ("INSERT INTO artifacts", "at it"),
    ("INSERT INTO versions", "at it"),
    ("INSERT INTO versions", "before its commit"),
    ("INSERT INTO versions", "after its commit"),
    ("INSERT INTO verdicts", "at it"),
    ("INSERT INTO points", "before its commit"),
)
SENDINGS = (("/model.sha256", "after"), ("/audit/", "before"))


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    """One Prefect server for all flows of this file, which find it by their environment."""
    before = dict(os.environ)
    home = tmp_path_factory.mktemp("prefect")
    os.environ |= {"PYTHONPATH": str(REPOSITORY), "PREFECT_HOME": str(home)}
    embedded.prepare()
    server = embedded.Server(home, embedded.free_port(), {})
    try:
        server.start()
        os.environ["PREFECT_API_URL"] = server.url
        yield
    finally:
        server.end()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def database():
    with postgres_server() as server, database_front(server) as front:
        yield front


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A server that keeps what it was sent when it is killed; one in memory would not."""
    with swift(tmp_path_factory.mktemp("swift")) as served, fronted(served.server) as (door, seen):
        yield served, door, seen


@pytest.fixture
def home(database, bucket, tmp_path, monkeypatch):
    """A home with a champion, its index in PostgreSQL and its remote in the bucket."""
    import psycopg

    with psycopg.connect(database.server.url.replace("+psycopg", ""), autocommit=True) as link:
        link.execute("drop schema if exists uni_moe cascade")
    environment = {**bucket[2].environment(), "UNI_MOE_DATABASE_URL": database.url}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    home = make_home(tmp_path / "home", "1", 0.6)
    register_one(home, "0", 0.5)
    shutil.rmtree(home.artifacts)
    set_remote(home.root, place(bucket, tmp_path.name))
    return home


def place(bucket, name):
    """Return a remote of its own."""
    return bucket[2].bucket(f"s3://uni-moe-tests/{name}").remote


def end(flow, code=0):
    """Wait for a flow's end; return what it said."""
    found, said = flow.end(PATIENCE_S)
    assert found == code, said
    assert "Traceback" not in said
    return said


def until(true, what):
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"still waiting for: {what}"
        time.sleep(0.05)


def hold_whole(home, versions=2):
    """Hold that every decision and number is there once, in the index as in what it is made from.

    The remote has all of it, byte by byte.
    """
    for name in ("registration", "verdict"):
        assert len(list(home.runs.glob(f"*/{name}.json"))) == versions
    assert [one.number for one in read.models(home)] == list(range(1, versions + 1))
    assert len(read.verdicts(home)) == versions
    assert audited(home).problems == ()
    runs = read.runs(home)
    assert {one.status for one in runs} <= {"done", "failed"}
    trained = [one.id for one in runs if (one.stage, one.status) == ("tune", "done")]
    assert len(trained) == versions - 1  # the first was never trained
    for run in trained:
        numbers = {"loss": [(step, 1.0 / (step + 1)) for step in range(POINTS)]}
        assert read.metrics(home, run) == numbers
    rows = tables(home)
    assert not [row for row in rows["runs"] if "'running'" in row]
    rebuild(home)
    assert tables(home) == rows
    hold_sent(home)


def hold_sent(home):
    """Hold that the remote has all of a home, byte by byte: nothing of it is sent again.

    The data of all versions that were trained are held by hand. A scheduled flow's own record is
    written when its push has ended: the next one sends it.
    """
    said, named = [], data_of_versions(home)
    there = data_of(home.root, read_remote(home.root))
    assert {md5: there.md5(object_of(md5)) for md5 in named} == {md5: md5[:32] for md5 in named}
    push(home.root, said.append, verify=True)
    sent = [line for line in said if "sending" in line and "-retrain-" not in line]
    sent += [line for line in said if "file(s)" in line]
    assert not [*sent, *(line for line in said if "is wrong" in line)]


@pytest.mark.parametrize("way, deaths", [("run", DEATHS), ("tick", DEATHS[3:])])
def test_a_database_killed_at_any_moment_loses_and_doubles_nothing(home, database, way, deaths):
    (home.root / HOLD).touch()
    flow = Flow(home.root, way)
    until((home.root / "begun").exists, "a stage at work")
    database.server.kill()
    (home.root / HOLD).unlink()
    assert "cannot be used" in end(flow, 2)
    database.server.start()
    for words, when in deaths:
        database.kill_at(words, when)
        # A tick then finds all judged: what its last import lacks comes with the next one.
        is_last = (way, words) == ("tick", "INSERT INTO points")
        said = end(Flow(home.root, way), 0 if is_last else 2)
        assert database.has_killed.is_set(), (words, when)
        assert "cannot be used" in said, (words, when)
        database.server.start()
    end(Flow(home.root, way))
    hold_whole(home)


def killed_at(bucket, path, when="before"):
    """Plan that the bucket's server dies when something is sent there; return what tells of it."""
    served, door, _ = bucket
    dead = threading.Event()

    def kill():
        served.stop()
        dead.set()

    door.kill, door.kill_at, door.kill_when = kill, path, when
    return dead


def test_a_bucket_killed_in_a_schedules_push_has_all_by_the_next_try(home, bucket):
    dead = killed_at(bucket, "/store/runs/")
    flow = Flow(home.root, "tick")
    assert dead.wait(PATIENCE_S), flow.output.read_text()
    bucket[0].start()
    end(flow)  # its own task has tried again
    hold_whole(home)
    new_data(home.root, "2", 0.6)
    dead = killed_at(bucket, "/model/")  # in DVC's part, DVC alone tries for minutes
    assert "its copy did not arrive" in end(Flow(home.root, "tick"), 8)
    assert dead.is_set()
    bucket[0].start()
    said = end(Flow(home.root, "tick"))  # nothing is new, but what was not sent
    assert "data: dvc push" in said
    hold_whole(home, 3)


def test_data_that_a_schedule_could_not_send_come_with_those_of_the_next_version(home, bucket):
    dead = killed_at(bucket, "/model/")
    assert "its copy did not arrive" in end(Flow(home.root, "tick"), 8)
    assert dead.is_set()
    new_data(home.root, "2", 0.8)  # the lock in the workspace apart is another one from now on
    bucket[0].start()
    end(Flow(home.root, "tick"))
    assert len(list(home.store.glob("*/graph-*/dvc.lock"))) == 2
    hold_whole(home, 3)


def test_a_bucket_killed_in_a_push_has_all_by_the_next_one(home, bucket):
    for number, (path, when) in enumerate(SENDINGS):
        set_remote(home.root, place(bucket, f"{number}-{home.root.parent.name}"))
        dead = killed_at(bucket, path, when)
        with pytest.raises(StoreError):
            push(home.root, print)
        assert dead.is_set(), path
        bucket[0].start()
        push(home.root, print)
        hold_sent(home)
