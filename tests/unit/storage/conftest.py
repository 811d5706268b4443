"""The stores that one suite holds to one protocol, and a folder to keep."""

import os
import secrets

import pytest

from tests.stores.servers import Server, moto, swift
from uni_moe.storage.blobs import LocalFolder
from uni_moe.storage.credentials import find_credentials


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "card.json").write_text("{}")
    (made / "deep" / "weights.bin").write_bytes(b"\x00\x01")
    return made


@pytest.fixture(scope="session")
def moto_server():
    with moto() as server:
        yield server


@pytest.fixture(scope="session")
def swift_served(tmp_path_factory):
    with swift(tmp_path_factory.mktemp("swift")) as served:
        yield served


@pytest.fixture(scope="session")
def swift_server(swift_served):
    return swift_served.server


@pytest.fixture(scope="session")
def told_server():
    endpoint = os.environ.get("UNI_MOE_S3_ENDPOINT")
    if not endpoint:
        pytest.skip("UNI_MOE_S3_ENDPOINT names no server")
    known = find_credentials({}, os.environ)
    return Server(endpoint, known.access_key, known.secret_key)


@pytest.fixture(
    params=[
        "local",
        "moto_server",
        "told_server",
        pytest.param("swift_server", marks=pytest.mark.operate),
    ]
)
def store(request, tmp_path):
    if request.param == "local":
        return LocalFolder(tmp_path / "store")
    server = request.getfixturevalue(request.param)
    return server.bucket(f"s3://uni-moe-tests/{secrets.token_hex(8)}")
