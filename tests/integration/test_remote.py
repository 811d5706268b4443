"""A workspace is copied to a bucket and to a second machine by the command, DVC's data included."""

import json
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flows.remote import set_remote
from tests.integration.ranks import has_own_mounts, with_room
from tests.stores.front import fronted
from tests.stores.servers import moto
from tests.stores.workspace import (
    REPOSITORY,
    commit,
    empty_workspace,
    register_one,
    registered_workspace,
)
from uni_moe.artifacts import Layout, verified_card
from uni_moe.cli import main
from uni_moe.config import load_params
from uni_moe.registry import read
from uni_moe.registry.indexing import index

SECRET = "PLANTED-secret-of-nobody"


@pytest.fixture(scope="module")
def server():
    with moto() as served:
        yield served


@pytest.fixture(autouse=True)
def own_database(monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "here"
    registered_workspace(root)
    return root


@pytest.fixture
def here(made, tmp_path):
    return Layout(shutil.copytree(made, tmp_path / "here"))


def uni_moe(
    root: Path, *words: str, secret: str | None = SECRET
) -> subprocess.CompletedProcess[str]:
    environment = {name: v for name, v in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"PYTHONPATH": str(REPOSITORY), "UNI_MOE_DEBUG": "1"}
    if secret is not None:
        environment |= {"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": secret}
    return subprocess.run(
        [sys.executable, "-m", "uni_moe", "--workspace", str(root), *words],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def done(root, *words, **options) -> str:
    said = uni_moe(root, *words, **options)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def failed(root, *words, **options) -> str:
    said = uni_moe(root, *words, **options)
    assert said.returncode == 8, said.stdout + said.stderr
    return said.stdout + said.stderr


def holders(folder: Path, text: str) -> list[str]:
    """Return the files below a folder that hold a text, a database's pages included."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and text.encode() in path.read_bytes()
    ]


def objects(server, url) -> dict[str, bytes]:
    """Return everything below a URL."""
    bucket = server.bucket(url)
    client, name = bucket._client, bucket.remote.bucket
    prefix = bucket.prefix.removesuffix("store")
    listed = client.list_objects(name, prefix, recursive=True)
    names = [str(one.object_name) for one in listed]
    return {one.removeprefix(prefix): client.get_object(name, one).data for one in names}


@pytest.fixture(scope="module")
def road(server, made, tmp_path_factory):
    """What the whole way there and back leaves: two workspaces, a bucket, and all that was said."""
    folder = tmp_path_factory.mktemp("road")
    here, there = Layout(shutil.copytree(made, folder / "here")), empty_workspace(folder / "there")
    url = f"s3://uni-moe-tests/{secrets.token_hex(8)}"
    said = [done(here.root, "remote", "set", url, "--endpoint", server.endpoint, "--make-bucket")]
    with fronted(server) as (front, seen):
        done(here.root, "remote", "set", url, "--endpoint", seen.endpoint)
        front.refusal = (403, "SignatureDoesNotMatch")
        said.append(failed(here.root, "push"))
        assert "refuses our credentials" in said[-1]
        front.refusal, front.puts_left = None, 8
        said.append(failed(here.root, "push"))
        assert "cannot be reached" in said[-1]
        assert "remedy:" in said[-1]
        front.puts_left = None
        said.append(done(here.root, "push"))
        puts = list(front.puts)
    said.append(done(there.root, "remote", "set", url, "--endpoint", server.endpoint))
    said.append(done(there.root, "pull"))
    return here, there, url, said, puts


def test_a_second_machine_gets_back_what_a_bucket_set_in_one_step_took(road, server):
    here, there, url, said, _ = road
    assert "it answers" in said[0]
    assert said[3].index("sending") < said[3].index("data: dvc push")
    kept = objects(server, url)
    assert any(name.startswith("dvc/files/md5/") for name in kept)
    assert any(name.endswith("/model.sha256") for name in kept)
    champion = read.champion(there)
    assert champion is not None
    assert verified_card(champion.model_folder).id == read.champion(here).model
    assert verified_card(there.model).id == champion.model  # DVC brought artifacts/


def test_a_push_that_broke_off_sends_nothing_twice(road):
    store = [path for path in road[4] if "/store/" in path]
    assert len(store) == len(set(store)) > 8


def test_the_secret_is_nowhere_but_where_it_was_put(road, server, tmp_path):
    here, there, url, said, _ = road
    root = Layout(shutil.copytree(here.root, tmp_path / "here")).root
    (root / ".dvc" / "config.local").write_text(
        f"['remote \"uni-moe\"']\n    access_key_id = access\n    secret_access_key = {SECRET}\n"
    )
    done(root, "remote", "set", url, "--endpoint", server.endpoint, secret=None)
    shown = done(root, "remote", "show", "--json", secret=None)
    assert json.loads(shown)["credentials"] == ".dvc/config.local"
    assert json.loads(shown)["answers"] == "yes"
    done(root, "registry", "rebuild")
    rows = sqlite3.connect(root / "registry.sqlite").execute("select count(*) from runs")
    assert rows.fetchone() > (0,)
    assert "config.local" in (root / ".dvc" / ".gitignore").read_text()
    assert SECRET not in "".join([*said, shown])
    assert holders(root, SECRET) == [".dvc/config.local"]
    assert holders(here.root, SECRET) == []
    assert holders(there.root, SECRET) == []
    kept = objects(server, url)
    assert len(kept) > 10
    assert not [name for name, data in kept.items() if SECRET.encode() in data]


@pytest.mark.operate
def test_a_byte_flipped_in_a_remote_folder_is_told_and_mended_by_the_next_push(here, tmp_path):
    nas = tmp_path / "nas, #1"
    done(here.root, "remote", "set", str(nas), secret=None)
    done(here.root, "push", secret=None)
    content = (here.model / "content.bin").read_bytes()
    for file in (
        file for file in nas.rglob("*") if file.is_file() and file.read_bytes() == content
    ):
        file.chmod(0o644)
        file.write_bytes(bytes([content[0] ^ 1]))
    there = empty_workspace(tmp_path / "there")
    done(there.root, "remote", "set", "../nas, #1", secret=None)
    told = uni_moe(there.root, "pull")
    assert told.returncode == 5
    assert "content.bin" in told.stderr
    said = done(here.root, "push", "--verify", secret=None)
    assert said.count("is wrong in the store; it is sent again") == 1
    assert said.count("is wrong; it is sent again") == 2  # the file and its folder's list
    done(there.root, "pull", "--all", secret=None)
    assert verified_card(read.champion(there).model_folder).id == verified_card(there.model).id


@pytest.mark.operate
def test_what_dvc_calls_up_to_date_without_having_it_is_told(here, tmp_path):
    done(here.root, "remote", "set", str(tmp_path / "nas"), secret=None)
    shutil.rmtree(here.root / ".dvc" / "cache")
    said = failed(here.root, "push", secret=None)
    assert "its cache lacks files" in said
    assert "dvc commit" in said


def test_a_run_with_nothing_to_do_sends_what_a_failed_push_left(here, server, monkeypatch, capsys):
    monkeypatch.setattr("uni_moe.workspace.check_graph", lambda _root: None)  # a graph of the test
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    (here.root / load_params(here.params).raw).mkdir(parents=True, exist_ok=True)
    store = server.bucket(f"s3://uni-moe-tests/{secrets.token_hex(8)}")
    set_remote(here.root, replace(store.remote, endpoint="http://127.0.0.1:9"))
    assert main(["--workspace", str(here.root), "run"]) == 8
    set_remote(here.root, store.remote)
    capsys.readouterr()
    assert main(["--workspace", str(here.root), "run"]) == 0
    said = capsys.readouterr().out
    assert said.index("records and models:") < said.index("The champion, version 1")
    assert store.has(f"{read.champion(here).model}/model")


@pytest.mark.operate
def test_another_versions_spoilt_data_is_told_and_stays(here, tmp_path):
    nas = tmp_path / "nas"
    done(here.root, "remote", "set", str(nas), secret=None)
    done(here.root, "push", secret=None)
    other = nas / "dvc" / "files" / "md5" / "ab" / ("c" * 30)
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(b"the last of another version")
    said = failed(here.root, "push", "--verify", secret=None)
    assert f"files/md5/ab/{other.name} is wrong" in said
    assert other.is_file()
    other.unlink()
    done(here.root, "push", "--verify", secret=None)


@pytest.mark.operate
def test_all_versions_come_with_the_champions_data(here, tmp_path):
    done(here.root, "remote", "set", str(tmp_path / "nas"), secret=None)
    done(here.root, "push", secret=None)
    register_one(here, "b", 0.95)
    commit(here)
    done(here.root, "push", secret=None)
    index(here)
    champion = read.champion(here)
    assert champion.number == 2
    there = empty_workspace(tmp_path / "there")
    done(there.root, "remote", "set", str(tmp_path / "nas"), secret=None)
    done(there.root, "pull", "--all", secret=None)
    assert len([one for one in read.models(there) if one.model_folder.is_dir()]) == 2
    assert verified_card(there.model).id == champion.model


def test_a_pull_without_a_champion_says_so(tmp_path):
    there = empty_workspace(tmp_path / "there")
    done(there.root, "remote", "set", str(tmp_path / "nas"), secret=None)
    for words in (["pull"], ["pull", "--all"]):
        said = uni_moe(there.root, *words)
        assert said.returncode == 5
        assert "the champion names 0 registered models" in said.stderr


@pytest.mark.operate
def test_a_folder_that_is_not_there_is_told_and_not_made(here, tmp_path):
    nas, away = tmp_path / "nas", tmp_path / "away"
    done(here.root, "remote", "set", str(nas), secret=None)
    assert json.loads(done(here.root, "remote", "show", "--json"))["answers"] == "yes"
    done(here.root, "push", secret=None)
    nas.rename(away)
    for mounted in (False, True):
        if mounted:
            nas.mkdir()  # the place where the disk belongs
        for words in (["push"], ["pull"], ["push", "--verify"]):
            assert f"The remote {nas} is not there." in failed(here.root, *words)
        told = json.loads(done(here.root, "remote", "show", "--json"))
        assert told["answers"].startswith("no: ")
        assert not nas.exists() or not list(nas.iterdir())
    nas.rmdir()
    away.rename(nas)
    done(here.root, "pull", secret=None)


@pytest.mark.operate
def test_data_that_the_remote_lacks_is_told_by_a_pull_as_the_remotes(here, tmp_path):
    done(here.root, "remote", "set", str(tmp_path / "nas"), secret=None)
    done(here.root, "push", secret=None)
    shutil.rmtree(tmp_path / "nas" / "dvc" / "files")
    there = empty_workspace(tmp_path / "there")
    done(there.root, "remote", "set", str(tmp_path / "nas"), secret=None)
    said = failed(there.root, "pull", secret=None)
    assert "the remote lacks files that dvc.lock names" in said
    assert "cache lacks" not in said
    assert "cache was cleared" not in said


def test_no_remote_is_told_with_the_command_that_sets_one(here):
    said = uni_moe(here.root, "push")
    assert said.returncode == 2
    assert "uni-moe remote set" in said.stderr


@pytest.mark.operate
@pytest.mark.parametrize("room_mb", [2, 5])  # it ends in our part, or in DVC's
def test_a_remote_whose_disk_is_full_is_told_and_the_next_push_completes(tmp_path, room_mb):
    if not has_own_mounts():
        pytest.skip("no small disk can be made here")
    here = empty_workspace(tmp_path / "here")
    register_one(here, "w" * 3_000_000, 0.7)
    commit(here)
    nas = tmp_path / "nas"
    done(here.root, "remote", "set", str(nas), secret=None)
    words = [sys.executable, "-m", "uni_moe", "--workspace", str(here.root), "push"]
    small = with_room(nas, room_mb * 1_000_000, words)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    told = subprocess.run(small, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 8, told.stdout + told.stderr
    assert "remedy:" in told.stderr
    assert "room" in told.stderr or "No space left" in told.stderr
    shutil.rmtree(nas)
    nas.with_name("nas.after").rename(nas)
    done(here.root, "push", secret=None)
    done(here.root, "push", "--verify", secret=None)
    there = empty_workspace(tmp_path / "there")
    done(there.root, "remote", "set", str(nas), secret=None)
    done(there.root, "pull", secret=None)
    assert verified_card(there.model).id == verified_card(here.model).id
