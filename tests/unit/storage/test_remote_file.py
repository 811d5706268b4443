"""A remote is a place without secrets; secrets come from DVC's local config or the environment."""

from pathlib import Path

import pytest

from uni_moe.errors import ConfigError, StoreError
from uni_moe.storage.blobs import LocalFolder
from uni_moe.storage.credentials import find_credentials
from uni_moe.storage.remote import (
    Remote,
    check_told,
    credentials_of,
    open_store,
    parse_remote,
    read_remote,
)

AWS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "planted"}
MINIO = {"MINIO_ACCESS_KEY": "m", "MINIO_SECRET_KEY": "planted", "MINIO_SESSION_TOKEN": "t"}
LOCAL = {"access_key_id": "l", "secret_access_key": "planted"}


def parse(url, endpoint=None):
    return parse_remote(url, endpoint, "us-east-1", Path("/here"))


@pytest.mark.parametrize("url", ["s3://buck", "s3://buck/", "s3://buck/a/b", "s3://buck/a/b/"])
def test_a_bucket_holds_dvcs_data_and_our_store_side_by_side(url):
    remote = parse(url, "http://host:9000/")
    assert remote.bucket == "buck"
    assert remote.endpoint == "http://host:9000"
    data = remote.for_dvc()["url"].removeprefix("s3://buck/")
    assert remote.prefix("dvc") == data
    assert remote.prefix("store").removesuffix("store") == data.removesuffix("dvc")
    assert "//" not in data


def test_a_folder_is_read_as_seen_from_here():
    assert parse("/mnt/me@home/a#b").url == "/mnt/me@home/a#b"
    assert parse("../nas").url == "/nas"
    assert parse("/nas/store").for_dvc() == {"url": "/nas/store/dvc", "verify": "true"}


@pytest.mark.parametrize(
    "url, endpoint",
    [
        ("s3://me:planted@buck/a", None),
        ("s3://buck/a", "http://me:planted@host:9000"),
        ("s3://buck/a?X-Amz-Signature=planted", None),
        ("s3://me:plan/planted@buck/a", None),
        ("s3://buck/a#planted", None),
        ("me:planted@host/buck", None),
        ("me:plan/planted@host/buck", None),
        ("s3://buck", "me:planted@host:9000"),
        ("s3://buck", "http://me:plan/planted@host:9000"),
        ("s3://buck", "http://host:9000#planted"),
        ("s3://Bu", None),
        ("s3://", None),
        ("gs://buck", None),
        ("folder", "http://host:9000"),
        ("s3://buck", "host:9000"),
        ("s3://buck", "http://host:9000/minio"),
        ("s3://buck", "ftp://host"),
    ],
)
def test_what_is_no_remote_or_holds_a_secret_is_refused_without_repeating_it(url, endpoint):
    with pytest.raises(ConfigError) as told:
        parse(url, endpoint)
    assert "planted" not in str(told.value)


def test_credentials_come_from_dvcs_local_config_then_aws_then_minio():
    assert find_credentials(LOCAL, AWS | MINIO).access_key == "l"
    assert find_credentials({}, AWS | MINIO).access_key == "a"
    found = find_credentials({}, MINIO)
    assert (found.access_key, found.session_token) == ("m", "t")
    assert set(found.environment()) == {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    }


@pytest.mark.parametrize("environ", [{}, {"AWS_ACCESS_KEY_ID": ""}])
def test_no_credentials_say_where_they_are_looked_for(environ):
    with pytest.raises(StoreError, match="no credentials") as told:
        find_credentials({}, environ)
    assert "AWS_SECRET_ACCESS_KEY" in told.value.remedy


@pytest.mark.parametrize(
    "local, environ", [({"access_key_id": "l"}, AWS), ({}, dict([*AWS.items()][1:]))]
)
def test_half_of_the_credentials_is_told_and_not_completed_from_elsewhere(local, environ):
    with pytest.raises(StoreError, match="only half there") as told:
        find_credentials(local, environ)
    assert "planted" not in str(told.value)


def config(root, name, **options):
    (root / ".dvc").mkdir(exist_ok=True)
    lines = "".join(f"    {key} = {value}\n" for key, value in options.items())
    (root / ".dvc" / name).write_text(f"[core]\n    no_scm = true\n['remote \"uni-moe\"']\n{lines}")


def test_a_workspace_without_our_remote_has_none(tmp_path):
    assert read_remote(tmp_path) is None
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("['remote \"other\"']\n    url = s3://buck/dvc\n")
    assert read_remote(tmp_path) is None


def test_a_secret_with_signs_that_dvc_quotes_is_read(tmp_path):
    config(tmp_path, "config", url="s3://buck/dvc", endpointurl="http://host:9000", region="eu")
    config(tmp_path, "config.local", access_key_id="l", secret_access_key='"pl,an#ted%"')
    assert read_remote(tmp_path) == Remote("s3://buck", "http://host:9000", "eu")
    assert credentials_of(tmp_path, {}).secret_key == "pl,an#ted%"


def test_a_folder_in_dvcs_config_is_relative_to_the_config(tmp_path):
    config(tmp_path, "config", url="../../nas/dvc")
    assert read_remote(tmp_path) == Remote(str(tmp_path.parent / "nas"))
    store = open_store(tmp_path, read_remote(tmp_path))
    assert isinstance(store, LocalFolder)
    assert store.root == tmp_path.parent / "nas" / "store"


def test_an_entry_of_another_hand_is_told(tmp_path):
    config(tmp_path, "config", url="s3://buck/data")
    with pytest.raises(ConfigError, match="not as `uni-moe remote set` writes it"):
        read_remote(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"url": "s3://me:planted@buck/dvc"},
        {"url": "s3://buck/dvc", "endpointurl": "http://me:planted@host:9000"},
        {"url": "s3://buck/dvc", "endpointurl": "http://host:9000?key=planted"},
    ],
)
@pytest.mark.parametrize("name", ["config", "config.local"])
def test_a_secret_that_a_hand_put_into_an_address_is_refused_and_not_repeated(
    tmp_path, name, options
):
    config(tmp_path, "config", url="s3://buck/dvc")
    config(tmp_path, name, **options)
    with pytest.raises(ConfigError, match="holds credentials") as told:
        read_remote(tmp_path)
    assert "planted" not in str(told.value)


def test_a_remote_that_this_machines_own_config_overrules_is_told(tmp_path):
    remote = Remote("s3://buck", "http://host:9000")
    config(tmp_path, "config", url="s3://buck/dvc", endpointurl="http://host:9000")
    check_told(tmp_path, remote)
    config(tmp_path, "config.local", endpointurl="http://other:9000", access_key_id="planted")
    with pytest.raises(ConfigError, match="is not in force") as told:
        check_told(tmp_path, remote)
    assert told.value.cause.endswith("wins: endpointurl.")
    assert "planted" not in str(told.value)


def test_a_broken_local_config_is_told_without_its_lines(tmp_path):
    config(tmp_path, "config", url="s3://buck/dvc")
    (tmp_path / ".dvc" / "config.local").write_text("secret_access_key = planted\n")
    with pytest.raises(ConfigError, match="cannot be read") as told:
        credentials_of(tmp_path, {})
    assert "planted" not in str(told.value)
    assert told.value.__cause__ is None
