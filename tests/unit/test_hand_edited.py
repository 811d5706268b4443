"""A table that was edited by hand is refused by every command that would build on it."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.data.contract_tables import run, workspace
from uni_moe.artifacts import sha256_file
from uni_moe.cli import main
from uni_moe.data.contract import validate


def say(layout, *words):
    return main(["--workspace", str(layout.root), *words])


def state(layout):
    """Return what lies in a workspace, beside locks and the records of runs, failed ones too."""
    files = [path for path in layout.root.rglob("*") if path.is_file()]
    beside = {layout.runs, layout.state}
    return {path: sha256_file(path) for path in files if not beside & set(path.parents)}


def another_licence(file):
    table = pq.read_table(file)
    place = table.schema.get_field_index("license")
    told = pa.array(["CC-BY-4.0"] * len(table), type=pa.string())
    pq.write_table(table.set_column(place, table.schema.field(place), told), file)


def cut(file):
    file.write_bytes(file.read_bytes()[:-20])


@pytest.fixture
def layout(tmp_path):
    layout = workspace(tmp_path)
    run("validate", layout, validate)
    return layout


@pytest.mark.parametrize("edit", [another_licence, cut])
@pytest.mark.parametrize(
    "table, word",
    [
        ("samples/image/manifest.parquet", "validate"),
        ("samples/image/manifest.parquet", "prepare@image"),
        ("validated/image/accepted.parquet", "prepare@image"),
    ],
)
def test_a_table_edited_by_hand_stops_the_stage_that_reads_it(layout, capsys, edit, table, word):
    edit(layout.artifacts / table)
    before = state(layout)
    assert say(layout, word) == 5
    told = capsys.readouterr().err
    name = table.rpartition("/")[2]
    assert f"is not what its card says: {name}" in told
    for part in ("cause:", "remedy:", "`dvc checkout`"):
        assert part in told
    assert state(layout) == before
