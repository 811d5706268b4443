"""Who reads the index writes nothing: no file of it, and none in a folder that is not his."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests.unit.registry.workspace import candidate
from uni_moe.artifacts import Layout
from uni_moe.registry import engines
from uni_moe.registry.indexing import index

NOBODY = 65534


@pytest.fixture
def indexed(tmp_path):
    layout = Layout(tmp_path / "one")
    candidate(layout, "a", 0.7)
    index(layout)
    return layout


def test_a_reader_cannot_write(indexed):
    engine = engines.reader(indexed)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=OFF")
        with pytest.raises(OperationalError, match="readonly"):
            connection.execute(text("DELETE FROM owner"))


def test_what_stands_in_the_log_alone_is_read_and_stays_there(indexed, tmp_path):
    writer = engines.writer(indexed)
    with writer.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE noted (what TEXT)")
        connection.exec_driver_sql("INSERT INTO noted VALUES ('in the log')")
        connection.commit()
        folder = Path(shutil.copytree(indexed.registry.parent, tmp_path / "copy"))
    writer.dispose()
    file, log = (folder / f"{indexed.registry.name}{end}" for end in ("", "-wal"))
    before = file.read_bytes(), log.read_bytes()
    assert before[1]
    with engines.reader(indexed, f"sqlite:///{file}").connect() as connection:
        assert connection.scalar(text("SELECT what FROM noted")) == "in the log"
    assert (file.read_bytes(), log.read_bytes()) == before


def test_a_folder_that_is_not_ours_to_write_is_read_and_stays_as_it_is(indexed):
    """Root may write everywhere: a child of another user reads."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "theirs"
        shutil.copytree(indexed.root, folder)
        theirs = Layout(folder)
        assert owners(theirs) == 1  # what is imported late is here now
        for end in ("-wal", "-shm"):
            theirs.registry.with_name(theirs.registry.name + end).unlink(missing_ok=True)
        there = sorted(one.name for one in theirs.registry.parent.iterdir())
        Path(made).chmod(0o755)
        theirs.registry.parent.chmod(0o555)
        child = os.fork()
        if child == 0:
            os._exit(_read_as_nobody(theirs))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert sorted(one.name for one in theirs.registry.parent.iterdir()) == there
        theirs.registry.parent.chmod(0o755)


def owners(layout):
    with engines.reader(layout).connect() as connection:
        return connection.scalar(text("SELECT count(*) FROM owner"))


def _read_as_nobody(layout):
    """Return how many rows are not seen of the one that is there; 9 where reading fails."""
    try:
        if os.geteuid() == 0:
            os.setuid(NOBODY)
        return 1 - owners(layout)
    except Exception:  # noqa: BLE001 - a child must end by its status
        return 9
