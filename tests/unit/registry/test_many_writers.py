"""Several processes write at once: no error, no lost row, and whole transactions only."""

import random
import sqlite3
from contextlib import closing

import pytest

from tests.unit.registry.many_writers import (
    FORKED,
    LINES,
    SHARED,
    WRITERS,
    exit_codes,
    steps,
    writers,
)
from tests.unit.registry.workspace import tables, write_run
from uni_moe.artifacts import Layout
from uni_moe.registry.indexing import index, rebuild


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


def test_four_processes_write_without_an_error_or_a_lost_row(layout):
    count = 20
    with writers(layout, count) as working:
        pass
    assert exit_codes(working) == [0] * WRITERS
    for who in range(WRITERS):
        for key in ("loss", "rate"):
            assert steps(layout, f"{who}-tune", key) == list(range(count * LINES))
    assert steps(layout, SHARED, "loss") == list(range(count * WRITERS))


def test_a_writer_that_is_killed_leaves_whole_transactions_only(layout):
    with writers(layout, 30) as working:
        told = [working[0].pipe.recv() for _ in range(5)][-1]
        working[0].process.kill()
    assert exit_codes(working[1:]) == [0] * (WRITERS - 1)
    found = steps(layout, "0-tune", "loss")
    assert len(found) % LINES == 0
    assert len(found) >= (told + 1) * LINES
    assert found == steps(layout, "0-tune", "rate") == list(range(len(found)))
    for who in range(1, WRITERS):
        assert len(steps(layout, f"{who}-tune", "loss")) == 30 * LINES
    with closing(sqlite3.connect(layout.registry)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)


def test_imports_at_once_make_what_one_makes(layout):
    draw = random.Random(0)
    for n in range(6):
        text = "".join(
            f'{{"step": {step}, "loss": {draw.random()}}}\n' for step in range(draw.randrange(300))
        )
        write_run(layout, f"{n}-tune", status="done", metrics=text)
    working = [FORKED.Process(target=index, args=(layout,)) for _ in range(4)]
    for one in working:
        one.start()
    for one in working:
        one.join()
    assert [one.exitcode for one in working] == [0] * 4
    before = tables(layout)
    rebuild(layout)
    assert tables(layout) == before
    assert index(layout)["points"] == len(before["points"])
