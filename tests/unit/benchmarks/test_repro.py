"""`dvc repro` with nothing to do is quick beside its imports, and one edit touches one shard."""

import pytest

from benchmarks.repro import _all_hashes, dvc, nothing_to_do, one_edit, workspace

SAMPLES, SHARD_BYTES = 20_000, 500_000
# The bar of 2 s is held by a machine that imports DVC in 0.6 s; a busy one stretches both alike.
MOST_IMPORTS = 4.0


@pytest.mark.operate
def test_a_repro_with_nothing_to_do_and_one_edit_at_a_small_size(tmp_path):
    layout = workspace(tmp_path / "space", SAMPLES, SHARD_BYTES)
    dvc(layout, "commit", "--force", "--quiet")
    idle = nothing_to_do(layout, rounds=3)
    assert idle.value <= MOST_IMPORTS * idle.facts["import"], idle.facts
    (edit,) = one_edit(layout, SAMPLES, SHARD_BYTES)
    assert edit.value == 1.0
    assert edit.facts["shards"] > 2
    assert edit.facts["outputs_changed"] == ["artifacts/samples/image"]
    assert edit.facts["stages_that_run"][0] == "ingest"
    # the shard, the table of rows, the card, and the list that names them
    assert edit.facts["new_objects"] == 4


def test_what_an_edit_changes_is_found_by_the_bytes_of_all_outputs(tmp_path):
    layout = workspace(tmp_path / "space", 200, SHARD_BYTES)
    other = layout.corpus("image") / "card.json"
    before = _all_hashes(layout)
    other.write_text("{}")
    after = _all_hashes(layout)
    assert {one for one in after if before[one] != after[one]} == {
        ("artifacts/corpus/image", "card.json")
    }
