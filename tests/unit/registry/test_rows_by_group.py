"""Rows of a table that lies in groups: only those groups are read that hold them."""

import pyarrow as pa
import pyarrow.parquet as pq

from tests.unit.registry import data_workspace
from uni_moe.artifacts import Layout
from uni_moe.registry.naming import meant
from uni_moe.registry.rows import _place, _rows


def test_rows_of_several_groups_are_those_that_are_asked_for(tmp_path):
    file = tmp_path / "table.parquet"
    keys = [f"mine/{n}" for n in range(95)]
    pq.write_table(pa.table({"key": keys, "caption": keys}), file, row_group_size=10)
    assert _place(file, "mine/57") == 57
    for places in ([57], [9, 10], [0, 94], [3, 4, 55]):
        assert [row["caption"] for row in _rows(file, places)] == [keys[one] for one in places]


def test_a_group_that_holds_nothing_of_it_is_not_read(tmp_path):
    file = tmp_path / "table.parquet"
    keys = [f"mine/{n}" for n in range(1000)]
    pq.write_table(pa.table({"key": keys}), file, row_group_size=500, compression="none")
    whole = file.read_bytes()
    file.write_bytes(whole[:4] + b"\xff" * 3_000 + whole[3_004:])  # of the first group
    assert [row["key"] for row in _rows(file, [900])] == ["mine/900"]


def test_a_long_number_names_no_version_that_it_begins_with(tmp_path):
    layout = Layout(tmp_path)
    data_workspace.registered(layout)
    assert len(meant(layout, "1")) == 1
    assert meant(layout, "000000001") == meant(layout, "1")
    assert meant(layout, "0000000010") == []
