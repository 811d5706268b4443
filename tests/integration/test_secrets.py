"""Secrets stay where a person put them: nothing that is written, sent or said holds one."""

import json
import os
import secrets
import shutil
from pathlib import Path

import pytest

from tests.integration.test_remote import holders, objects
from tests.stores.servers import moto
from tests.stores.workspace import empty_workspace, registered_workspace
from uni_moe.artifacts import Layout
from uni_moe.cli import main

PLANTED = {
    "AWS_ACCESS_KEY_ID": "PLANTEDaccesskey",
    "AWS_SECRET_ACCESS_KEY": "PLANTED-secret-of-nobody",
    "AWS_SESSION_TOKEN": "PLANTED-session-of-nobody",
    "UNI_MOE_WEBHOOK": "http://127.0.0.1:9/hooks/PLANTED-token-of-nobody",
    "UNI_MOE_MAIL_PASSWORD": "PLANTED-mail-of-nobody",
}
DATABASE = "postgresql+psycopg://moe:PLANTED-password-of-nobody@127.0.0.1:9/moe"
MARK = "PLANTED"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return registered_workspace(tmp_path_factory.mktemp("made") / "here").root


@pytest.fixture
def here(made, tmp_path):
    return Layout(shutil.copytree(made, tmp_path / "here"))


@pytest.fixture
def said(monkeypatch, capfd):
    """Run commands as a person with secrets does; all that is said of them is kept."""
    for name in [one for one in os.environ if one.startswith(("AWS_", "UNI_MOE_"))]:
        monkeypatch.delenv(name)
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UNI_MOE_DEBUG", "1")
    told = []

    def command(root: Path, *words: str, code: int = 0) -> str:
        assert main(["--workspace", str(root), *words]) == code
        told.append("".join(capfd.readouterr()))
        return told[-1]

    command.told = told
    return command


def test_no_secret_is_in_what_a_round_trip_writes_sends_or_says(said, here, tmp_path, monkeypatch):
    there = empty_workspace(tmp_path / "there")
    url = f"s3://uni-moe-tests/{secrets.token_hex(8)}"
    with moto() as server:
        place = ("remote", "set", url, "--endpoint", server.endpoint)
        said(here.root, *place, "--make-bucket")
        said(here.root, "push")
        said(here.root, "remote", "show", "--json")
        said(there.root, *place)
        said(there.root, "pull")
        said(here.root, "gc", "--remote", "--json")
        said(here.root, "disk", "--json")
        said(here.root, "models", "--json")
        kept = objects(server, url)
        said(here.root, *place[:3], "--endpoint", "http://127.0.0.1:9", code=8)
        said(here.root, "push", code=8)  # nobody answers there
    for name, words in {
        "passport.html": ("passport", "--out"),
        "audit.jsonl": ("audit", "export", "--out"),
        "lineage.jsonl": ("audit", "export", "--openlineage"),
    }.items():
        said(here.root, *words, str(here.root / name))
        assert (here.root / name).stat().st_size > 0
    said(here.root, "registry", "rebuild")
    monkeypatch.setenv("UNI_MOE_DATABASE_URL", DATABASE)
    assert "127.0.0.1" in said(here.root, "models", code=2) or "psycopg" in said.told[-1]
    assert holders(tmp_path, MARK) == []
    assert len(kept) > 10
    assert not [name for name, data in kept.items() if MARK.encode() in data or MARK in name]
    assert json.dumps(said.told).count(MARK) == 0


@pytest.mark.operate
def test_a_missing_bucket_is_told_and_once_it_is_made_the_next_push_completes(said, here):
    with moto() as server:
        place = ("remote", "set", "s3://uni-moe-gone/x", "--endpoint", server.endpoint)
        assert "--make-bucket" in said(here.root, *place, code=8)
        told = said(here.root, "push", code=8)
        assert "There is no bucket uni-moe-gone" in told
        assert "--make-bucket" in told
        said(here.root, *place, "--make-bucket")
        said(here.root, "push")
        said(here.root, "push", "--verify")
        assert len(objects(server, "s3://uni-moe-gone/x")) > 10
