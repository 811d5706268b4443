"""The live ledger: parts, resume, one file, one root."""

import json
import random

import pytest

from tests.unit.train.reports import report, seen
from uni_moe.data.exposures import FILE, LedgerEntry, leaf_of, read_entries
from uni_moe.errors import StageError
from uni_moe.merkle import tree_of
from uni_moe.train import ledger as module
from uni_moe.train.ledger import Ledger

SOURCES = ("cats", "dogs")


def step_of(step, ranks=1):
    """Return a step of one to five draws: a function of its number."""
    dice = random.Random(step)
    draws = [
        seen(slot, f"{dice.randrange(9)} é", source=dice.choice(SOURCES), truncated=slot % 2)
        for slot in range(1 + dice.randrange(5))
    ]
    return report(step, draws, ranks=ranks)


def recorded(folder, steps=range(1, 41), ranks=1, keep_every=None):
    ledger = Ledger(folder)
    ledger.begin()
    for step in steps:
        ledger.add(step_of(step, ranks))
        if keep_every and step % keep_every == 0:
            ledger.position()
    return ledger


def written(ledger, folder):
    folder.mkdir()
    return ledger.write(folder), (folder / FILE).read_bytes()


def test_the_ledger_file_holds_every_draw_in_order(tmp_path):
    told, _ = written(recorded(tmp_path / "ledger", keep_every=7), tmp_path / "out")
    expected = [
        LedgerEntry(
            step, 0, one.slot, one.sample, one.key, one.modality, one.source, 4, one.truncated
        )
        for step in range(1, 41)
        for _, one in step_of(step).seen
    ]
    found = list(read_entries(tmp_path / "out" / FILE))
    assert found == expected
    assert told == {"entries": len(found), "root": tree_of(map(leaf_of, found)).root().hex()}


def test_interruptions_do_not_show_in_the_bytes_of_a_ledger(tmp_path, monkeypatch):
    monkeypatch.setattr("uni_moe.data.exposures._GROUP_ROWS", 16)
    whole = written(recorded(tmp_path / "a"), tmp_path / "a.out")
    monkeypatch.setattr(module, "_MOST_WAITING", 9)
    assert written(recorded(tmp_path / "b", keep_every=3), tmp_path / "b.out") == whole


@pytest.mark.parametrize("killed_at", [10, 11, 19, 40])
@pytest.mark.parametrize("kept_at", [5, 10])
def test_a_ledger_that_resumes_drops_what_came_later(tmp_path, monkeypatch, kept_at, killed_at):
    whole = written(recorded(tmp_path / "a"), tmp_path / "a.out")
    monkeypatch.setattr(module, "_MOST_WAITING", 6)
    first = recorded(tmp_path / "b", range(1, kept_at + 1))
    kept = json.loads(json.dumps(first.position()))
    for step in range(kept_at + 1, killed_at + 1):
        first.add(step_of(step))
    (tmp_path / "b" / ".part-torn").write_bytes(b"half")  # what a killed process leaves
    second = Ledger(tmp_path / "b")
    second.resume(kept)
    for step in range(kept_at + 1, 41):
        second.add(step_of(step))
    assert written(second, tmp_path / "b.out") == whole


def test_a_ledger_goes_back_in_mid_training_and_leaves_a_step_out(tmp_path):
    ledger = recorded(tmp_path / "a", range(1, 11))
    kept = ledger.position()
    ledger.add(step_of(11))
    ledger.add(step_of(12))
    ledger.resume(kept)
    ledger.add(step_of(11))
    ledger.add(step_of(13))
    told, data = written(ledger, tmp_path / "a.out")
    other = recorded(tmp_path / "b", [*range(1, 12), 13])
    assert written(other, tmp_path / "b.out") == (told, data)


def test_a_ledger_that_begins_again_forgets_an_earlier_training(tmp_path):
    recorded(tmp_path / "a", range(1, 30), keep_every=4)
    told, _ = written(recorded(tmp_path / "a", range(1, 4)), tmp_path / "out")
    assert told["entries"] == sum(len(step_of(step).seen) for step in range(1, 4))


def test_the_ledgers_root_does_not_depend_on_ranks(tmp_path):
    one, file_of_one = written(recorded(tmp_path / "a", ranks=1), tmp_path / "a.out")
    two, file_of_two = written(recorded(tmp_path / "b", ranks=2), tmp_path / "b.out")
    assert one == two
    assert file_of_one != file_of_two  # the rank stands in the table
    assert {entry.rank for entry in read_entries(tmp_path / "b.out" / FILE)} == {0, 1}


@pytest.mark.parametrize("field", [name for name in LedgerEntry._fields if name != "rank"])
def test_every_other_column_changes_an_entrys_hash(field):
    entry = LedgerEntry(1, 0, 2, "id", "a key", "image", "cats", 4, 0)
    other = {"step": 2, "slot": 1, "tokens": 5, "truncated": 1}.get(field, "other")
    assert leaf_of(entry._replace(**{field: other})) != leaf_of(entry)
    assert leaf_of(entry._replace(rank=7)) == leaf_of(entry)


def harm_drop(part):
    part.unlink()


def harm_tear(part):
    part.write_bytes(part.read_bytes()[:-9])


def harm_swap(part):
    entries = list(read_entries(part))
    part.unlink()
    module.write_entries(part, entries[::-1])


@pytest.mark.parametrize("harm", [harm_drop, harm_tear, harm_swap])
def test_a_ledger_whose_parts_were_touched_does_not_resume(tmp_path, harm):
    ledger = recorded(tmp_path / "state" / "ledger", range(1, 21), keep_every=5)
    kept = ledger.position()
    harm(sorted((tmp_path / "state" / "ledger").glob("part-*"))[1])
    with pytest.raises(StageError, match=r"ledger in .* (is not the one|cannot be read)") as told:
        Ledger(tmp_path / "state" / "ledger").resume(kept)
    assert str(tmp_path / "state") in told.value.remedy


def test_a_ledger_whose_parts_were_touched_while_it_ran_is_not_written(tmp_path):
    ledger = recorded(tmp_path / "ledger", range(1, 21), keep_every=5)
    harm_drop(min((tmp_path / "ledger").glob("part-*")))
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError, match="were recorded"):
        ledger.write(tmp_path / "out")


def test_an_empty_ledger_is_a_file_without_rows(tmp_path):
    told, _ = written(recorded(tmp_path / "ledger", ()), tmp_path / "out")
    assert told["entries"] == 0
    assert list(read_entries(tmp_path / "out" / FILE)) == []


def test_one_step_is_never_recorded_twice(tmp_path):
    ledger = recorded(tmp_path / "ledger", range(1, 4))
    with pytest.raises(AssertionError, match="step 3 comes after step 3"):
        ledger.add(step_of(3))


def test_a_disk_that_refuses_the_ledger_is_told(tmp_path):
    (tmp_path / "ledger").write_text("a file stands where the folder should")
    ledger = Ledger(tmp_path / "ledger")
    ledger.add(step_of(1))
    with pytest.raises(StageError, match="ledger could not be written") as told:
        ledger.position()
    assert "last whole state" in told.value.remedy
