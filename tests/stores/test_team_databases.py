"""What the team's PostgreSQL is set up with: owners of their own, and a role that only reads."""

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.stores.postgres import postgres

SCRIPT = Path(__file__).parents[2] / ".deploy" / "databases.sh"
pytestmark = pytest.mark.operate


def test_the_reader_reads_what_the_index_makes_and_writes_nothing():
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    with postgres() as url:
        place = urlsplit(url)
        names = ("REGISTRY_PASSWORD", "PREFECT_PASSWORD", "READER_PASSWORD")
        told = {"PGHOST": "127.0.0.1", "PGPORT": str(place.port), "POSTGRES_USER": "moe"}
        environment = {**os.environ, **told, **dict.fromkeys(names, "it's")}
        subprocess.run(["bash", str(SCRIPT)], env=environment, check=True, capture_output=True)

        def connect(user):
            at = f"host=127.0.0.1 port={place.port} dbname=uni_moe user={user}"
            return psycopg.connect(at, autocommit=True)

        with connect("uni_moe") as owner:
            owner.execute("CREATE SCHEMA uni_moe")
            owner.execute("CREATE TABLE uni_moe.versions AS SELECT 1 AS number")
        with connect("uni_moe_reader") as reader:
            assert reader.execute("SELECT number FROM uni_moe.versions").fetchall() == [(1,)]
            for words in (
                "INSERT INTO uni_moe.versions VALUES (2)",
                "SET default_transaction_read_only = off; DELETE FROM uni_moe.versions",
                "CREATE TABLE mine (it int)",
            ):
                with pytest.raises(psycopg.Error):
                    reader.execute(words)
        with pytest.raises(psycopg.OperationalError):
            connect("prefect")
