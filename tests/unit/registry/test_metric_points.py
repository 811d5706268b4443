"""Metric points: imported from where the last import stopped, thinned where they are many."""

import json
import math
import random
import sqlite3
from contextlib import closing

import pytest

from tests.unit.registry.workspace import tables, write_run
from uni_moe.artifacts import Layout, read_json, write_json
from uni_moe.errors import LineageError
from uni_moe.registry import metric_import, read
from uni_moe.registry.indexing import index, rebuild
from uni_moe.registry.points import Summary, summed, told
from uni_moe.registry.writer import opened


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


def line(step, second=0, **values):
    time = f"2026-03-01T00:00:{second:02}+00:00"
    return json.dumps({"time": time, "step": step, **values}) + "\n"


def told_more(folder, text):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(text)


def ended(folder):
    record = read_json(folder / "run.json")
    write_json(folder / "run.json", record | {"status": "done"})


def whole(layout):
    return metric_import.Unread("1-tune", layout.runs / "1-tune" / "metrics.jsonl", is_over=True)


def rows(layout, query):
    with closing(sqlite3.connect(layout.registry)) as connection:
        return connection.execute(query).fetchall()


def test_half_written_lines_are_not_there_yet(layout):
    whole = line(1, loss=2.5) + line(2, loss=math.nan)
    folder = write_run(layout, "1-tune", metrics=whole + '{"time": "t", "step": 3, "lo')
    index(layout)
    assert repr(read.curve(layout, "1-tune", "loss")) == (
        "[Point(step=1, value=2.5), Point(step=2, value=nan)]"
    )
    assert rows(layout, "select position from metric_files") == [(len(whole),)]
    told_more(folder, 'ss": 1.5}\n')
    index(layout)
    assert read.curve(layout, "1-tune", "loss")[2] == read.Point(3, 1.5)


def test_an_import_reads_only_what_is_new(layout, monkeypatch):
    folder = write_run(layout, "1-tune", metrics=line(1, loss=2.5))
    index(layout)
    asked = []
    lines_from = metric_import.lines_from

    def listening(file, start, most_bytes):
        asked.append(start)
        return lines_from(file, start, most_bytes)

    monkeypatch.setattr(metric_import, "lines_from", listening)
    index(layout)
    assert asked == []
    told_more(folder, line(2, loss=1.5))
    index(layout)
    assert asked[0] == len(line(1, loss=2.5))
    ended(folder)
    index(layout)
    asked.clear()
    index(layout)
    assert asked == []


def test_slices_of_any_size_give_the_same_points(layout):
    draw = random.Random(0)
    text = "".join(
        line(draw.randrange(40), second, loss=draw.random(), rate=draw.choice([1, math.inf, 2]))
        for second in range(60)
    )
    write_run(layout, "1-tune", status="done", metrics=text)
    index(layout)
    before = tables(layout)
    for size in (1, 100, 1000):
        other = Layout(layout.root / str(size))
        write_run(other, "1-tune", status="done", metrics=text)
        with opened(other) as writer:
            writer.add_run(read_json(other.runs / "1-tune" / "run.json"))
            writer.read([whole(other)], size)
        found = tables(other)
        names = ("series", "points", "not_finite", "metric_files")
        assert {name: found[name] for name in names} == {name: before[name] for name in names}


def test_an_index_filled_bit_by_bit_is_the_one_that_a_rebuild_makes(layout):
    draw = random.Random(1)
    folders = [write_run(layout, f"{n}-tune") for n in range(3)]
    for second in range(20):
        for folder in draw.sample(folders, 2):
            values = {draw.choice("abcd"): draw.choice([draw.random(), math.nan, -math.inf])}
            told_more(folder, line(draw.randrange(12), second, **values))
        index(layout)
    ended(folders[0])
    index(layout)
    before = tables(layout)
    rebuild(layout)
    assert tables(layout) == before


def test_a_step_that_is_told_again_counts_once(layout):
    folder = write_run(layout, "1-tune", metrics=line(1, loss=9.0) + line(2, loss=math.nan))
    index(layout)
    told_more(folder, line(1, loss=2.0) + line(2, loss=3.0))
    index(layout)
    found = read.metric_keys(layout, "1-tune")["loss"]
    assert found == read.Series("loss", 2, 2, 3.0, 2.0, 3.0)
    assert rows(layout, "select * from not_finite") == []


def test_a_file_that_another_took_the_place_of_is_read_anew(layout):
    folder = write_run(layout, "1-tune", metrics=line(1, loss=9.0) + line(2, loss=8.0))
    index(layout)
    (folder / "metrics.jsonl").write_text(line(7, loss=7.0))
    index(layout)
    assert read.curve(layout, "1-tune", "loss") == [read.Point(7, 7.0)]


def test_a_line_longer_than_a_slice_is_read_whole(layout):
    values = {f"key-{n}": n / 7 for n in range(100)}
    write_run(layout, "1-tune", status="done", metrics=line(1, **values) + line(2, loss=1.0))
    with opened(layout) as writer:
        writer.add_run(read_json(layout.runs / "1-tune" / "run.json"))
        writer.read([whole(layout)], 64)
    assert len(read.metric_keys(layout, "1-tune")) == 101


def test_lines_without_a_step_say_nothing():
    broken = [{"loss": 1.0}, {"step": "7", "loss": 1.0}, {"step": 2**64, "loss": 1.0}]
    assert told([*broken, {"step": 1, "loss": 10**400, "name": "x"}]) == {"loss": {1: math.inf}}
    assert told([{"step": 3, "time": "no time"}]) == {}
    assert told([{"step": 3, "time": "1970-01-01T00:01:00+00:00"}]) == {"time": {3: 60.0}}


@pytest.mark.parametrize(
    ("points", "replaced", "wanted"),
    [
        ({4: 5.0}, {}, Summary(4, 4, 5.0, 1.0, 5.0)),
        ({5: math.inf}, {}, Summary(4, 5, None, 1.0, 3.0)),
        ({2: 9.0}, {}, Summary(4, 3, 2.0, 1.0, 9.0)),
        ({3: 1.5}, {3: 2.0}, Summary(3, 3, 1.5, 1.0, 3.0)),
        ({1: 4.0}, {1: 3.0}, Summary(3, 3, 2.0, 1.0, 4.0)),
        ({1: math.nan}, {1: 3.0}, None),
        ({0: 1.5, 4: 1.0}, {0: 1.0}, Summary(3 + 1, 4, 1.0, 1.0, 3.0)),
        ({0: 1.5}, {0: 1.0}, None),
    ],
)
def test_a_summary_grows_with_its_points(points, replaced, wanted):
    before = Summary(3, 3, 2.0, 1.0, 3.0)  # 0: 1.0, 1: 3.0, 3: 2.0
    assert summed(before, points, replaced) == wanted


def test_the_best_runs_by_a_number_are_found(layout):
    for n, loss in enumerate([0.5, 0.1, math.nan, 0.9, 0.3]):
        write_run(layout, f"{n}-tune", metrics=line(1, loss=2.0) + line(2, loss=loss))
    index(layout)
    assert [one.run for one in read.top_runs(layout, "loss", 2)] == ["3-tune", "0-tune"]
    best = read.top_runs(layout, "loss", 9, "smallest")
    assert [one.last for one in best] == [0.1, 0.3, 0.5, 0.9]
    assert (best[0].stage, best[0].last_step, best[0].greatest) == ("tune", 2, 2.0)
    assert read.top_runs(layout, "no such key", 9) == []


def test_questions_are_right_where_there_is_no_index_yet(layout):
    write_run(layout, "1-tune", metrics=line(1, loss=2.0))
    assert [one.last for one in read.top_runs(layout, "loss", 1)] == [2.0]
    assert read.curve(layout, "1-tune", "loss") == [read.Point(1, 2.0)]
    assert not layout.registry.exists()


def test_a_thinned_curve_keeps_what_stands_out(layout):
    values = [math.sin(n / 50) for n in range(5000)]
    values[1234], values[4321] = 9.0, -9.0
    write_run(layout, "1-tune", metrics="".join(line(n, loss=v) for n, v in enumerate(values)))
    index(layout)
    found = read.curve(layout, "1-tune", "loss", at_most=100)
    assert 50 < len(found) <= 100
    assert {read.Point(1234, 9.0), read.Point(4321, -9.0)} < set(found)
    assert found == sorted(found, key=lambda point: point.step)
    assert found == by_hand(values, 0, 5000, 50)
    part = read.curve(layout, "1-tune", "loss", (1000, 1999), at_most=10)
    assert part == by_hand(values, 1000, 2000, 5)
    assert len(read.curve(layout, "1-tune", "loss", (10, 19))) == 10


def by_hand(values, first, end, parts):
    """Return the least and the greatest of every part, slowly."""
    width = (end - first) / parts
    kept = set()
    for part in range(parts):
        steps = range(int(first + part * width), int(first + (part + 1) * width))
        kept |= {min(steps, key=values.__getitem__), max(steps, key=values.__getitem__)}
    return [read.Point(step, values[step]) for step in sorted(kept)]


def test_a_thinned_curve_shows_where_numbers_were_none(layout):
    text = "".join(line(n, loss=-math.inf if n == 777 else 1.0) for n in range(2000))
    write_run(layout, "1-tune", metrics=text)
    index(layout)
    found = read.curve(layout, "1-tune", "loss", at_most=30)
    assert len(found) <= 30
    assert read.Point(777, -math.inf) in found


def test_a_run_that_is_not_there_is_told(layout):
    index(layout)
    for ask in (read.metric_keys, lambda *x: read.curve(*x, "loss"), read.metrics):
        with pytest.raises(LineageError, match="no run 7-tune"):
            ask(layout, "7-tune")
    write_run(layout, "7-tune")
    index(layout)
    assert read.curve(layout, "7-tune", "loss") == []
