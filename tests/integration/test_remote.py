"""A workspace is copied to a bucket and to a second machine by the command, DVC's data included."""

import json
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stores.front import fronted
from tests.stores.servers import moto
from tests.stores.workspace import REPOSITORY, empty_workspace, registered_workspace
from uni_moe.artifacts import Layout, verified_card
from uni_moe.registry import read

SECRET = "PLANTED-secret-of-nobody"


@pytest.fixture(scope="module")
def server():
    with moto() as served:
        yield served


@pytest.fixture
def url():
    return f"s3://uni-moe-tests/{secrets.token_hex(8)}"


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
    assert said.returncode == 7, said.stdout + said.stderr
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
    prefix = bucket.remote.prefix.removesuffix("store")
    listed = client.list_objects(name, prefix, recursive=True)
    names = [str(one.object_name) for one in listed]
    return {one.removeprefix(prefix): client.get_object(name, one).data for one in names}


def test_a_bucket_set_in_one_step_takes_all_and_a_second_machine_gets_it_back(
    server, url, here, tmp_path
):
    said = done(here.root, "remote", "set", url, "--endpoint", server.endpoint, "--make-bucket")
    assert "it answers" in said
    said = done(here.root, "push")
    assert "data: dvc push" in said
    assert said.index("registration") < said.index("dvc push") if "registration" in said else True
    kept = objects(server, url)
    assert any(name.startswith("dvc/files/md5/") for name in kept)
    assert any(name.endswith("/model.sha256") for name in kept)
    assert "0 folders sent" in done(here.root, "push")

    there = empty_workspace(tmp_path / "there")
    done(there.root, "remote", "set", url, "--endpoint", server.endpoint)
    done(there.root, "pull")
    champion = read.champion(there)
    assert champion is not None
    assert verified_card(champion.model_folder).id == read.champion(here).model
    assert verified_card(there.model).id == champion.model  # DVC brought artifacts/
    shown = json.loads(done(there.root, "remote", "show", "--json"))
    assert shown["answers"] == "yes"
    assert shown["remote"] == url


def test_a_folder_is_a_remote_without_a_server_or_secrets(here, tmp_path):
    done(here.root, "remote", "set", str(tmp_path / "nas, #1"), secret=None)
    done(here.root, "push", secret=None)
    there = empty_workspace(tmp_path / "there")
    done(there.root, "remote", "set", "../nas, #1", secret=None)
    done(there.root, "pull", "--all", secret=None)
    assert verified_card(read.champion(there).model_folder).id == verified_card(there.model).id
    assert "nas, #1" in done(there.root, "remote", "show", secret=None)


def test_a_server_that_stops_in_mid_push_costs_only_what_it_had_not_got(
    server, url, here, tmp_path
):
    with fronted(server) as (front, seen):
        done(here.root, "remote", "set", url, "--endpoint", seen.endpoint, "--make-bucket")
        front.puts.clear()
        front.puts_left = 8
        said = failed(here.root, "push")
        assert "cannot be reached" in said
        assert "remedy:" in said
        front.puts_left = None
        done(here.root, "push")
        store = [path for path in front.puts if "/store/" in path]
        assert len(store) == len(set(store))
        there = empty_workspace(tmp_path / "there")
        done(there.root, "remote", "set", url, "--endpoint", seen.endpoint)
        done(there.root, "pull")
    assert read.champion(there).model == read.champion(here).model


def test_what_dvc_cannot_do_is_told_with_its_own_words(server, url, here):
    done(here.root, "remote", "set", url, "--endpoint", server.endpoint, "--make-bucket")
    shutil.rmtree(here.root / ".dvc" / "cache")
    said = failed(here.root, "push")
    assert "DVC could not push the data" in said
    assert "uni-moe push" in said


def test_no_remote_is_told_with_the_command_that_sets_one(here):
    said = uni_moe(here.root, "push")
    assert said.returncode == 2
    assert "uni-moe remote set" in said.stderr


def test_the_secret_is_nowhere_but_where_it_was_put(server, url, here, tmp_path):
    said = [done(here.root, "remote", "set", url, "--endpoint", server.endpoint, "--make-bucket")]
    said += [done(here.root, word) for word in ("push", "pull")]
    said.append(done(here.root, "remote", "show"))
    there = empty_workspace(tmp_path / "there")
    done(there.root, "remote", "set", url, "--endpoint", server.endpoint)
    said.append(done(there.root, "pull", "--all"))
    with fronted(server) as (front, seen):  # what fails tells more than what goes well
        done(here.root, "remote", "set", url, "--endpoint", seen.endpoint)
        front.refusal = (403, "SignatureDoesNotMatch")
        (here.root / "artifacts" / "model" / "content.bin").write_text("other")
        run = shutil.copytree(next(here.runs.iterdir()), here.runs / "one-more")
        record = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(record | {"id": "one-more"}))
        said.append(failed(here.root, "push"))
    local = here.root / ".dvc" / "config.local"
    local.write_text(
        f"['remote \"uni-moe\"']\n    access_key_id = access\n    secret_access_key = {SECRET}\n"
    )
    said.append(done(here.root, "remote", "show", secret=None))
    assert ".dvc/config.local" in said[-1]
    done(here.root, "index", "--rebuild")
    assert sqlite3.connect(here.registry).execute("select count(*) from runs").fetchone() > (0,)
    assert "config.local" in (here.root / ".dvc" / ".gitignore").read_text()
    assert SECRET not in "".join(said)
    assert holders(here.root, SECRET) == [".dvc/config.local"]
    assert holders(there.root, SECRET) == []
    kept = objects(server, url)
    assert len(kept) > 10
    assert not [name for name, data in kept.items() if SECRET.encode() in data]
