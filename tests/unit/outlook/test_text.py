from dataclasses import replace

import pytest

from tests.unit.outlook.small import training
from tests.unit.registry.workspace import RULES
from uni_moe.outlook.disk import Disk
from uni_moe.outlook.draws import Pool
from uni_moe.outlook.text import outlook_text
from uni_moe.outlook.times import Estimate
from uni_moe.outlook.whole import Outlook
from uni_moe.registry.gate import in_words
from uni_moe.train.fits import Host, Room
from uni_moe.train.memory import Memory

ROOMY = Room(2**30, "a test")
POOL = Pool(4, 8, 0, 0, 0, 0, 0, exact=True, older=False)
NEEDED = Memory("update", {"trained": 2**20})


def outlook(free=1, **trainings):
    disk = Disk({"tune": 1}, {}, {}, features_here=0, free=free)
    stages = (*trainings, "evaluate")
    return Outlook(stages, {}, {}, trainings, {}, disk, (), RULES, champion=None)


def rows(text, name):
    return [line for line in text.splitlines() if line.strip().startswith(name)]


def test_the_plan_says_the_gate_in_the_gate_s_own_words():
    assert in_words(RULES, None) in outlook_text(outlook(tune=training()))


@pytest.mark.parametrize("older", [False, True])
def test_what_is_known_from_an_older_corpus_alone_says_so(older):
    pools = {"image": replace(POOL, older=older)}
    one = training(older=older, pools=pools, memory=NEEDED, room=ROOMY)
    said = [line for line in rows(outlook_text(outlook(tune=one)), "tune") if "older" in line]
    assert len(said) == 3 * older  # a step's size, the pool, the memory


def test_what_ends_a_stage_before_its_first_step_stands_in_its_row():
    said = outlook_text(outlook(align=training(problem="Nobody knows."), tune=training()))
    assert [row.strip()[:5] for row in said.splitlines() if "Nobody knows." in row] == ["align"]


def test_every_stage_is_held_against_its_own_room():
    alone = training(memory=NEEDED, room=Room(2**21, "the whole machine"))
    shared = training(memory=NEEDED, room=Room(2**19, "a share of it"))
    said = outlook_text(outlook(language=alone, tune=shared))
    assert "said by the whole machine; a share of it" in said
    (whole,) = [row for row in rows(said, "language") if "2.0 MiB" in row]
    (share,) = [row for row in rows(said, "tune") if "512.0 KiB" in row]
    assert ("DOES NOT FIT" in whole, "DOES NOT FIT" in share) == (False, True)


def test_beside_an_accelerator_a_stage_is_held_against_its_machines_memory_as_well():
    small = Host(NEEDED, Room(2**19, "the machine around it"))
    one = training(memory=NEEDED, room=ROOMY, host=small)
    said = outlook_text(outlook(tune=one))
    assert "said by a test; the machine around it" in said
    (row,) = rows(said, "on its machine")
    assert "512.0 KiB" in row
    assert "DOES NOT FIT" in row
    assert not one.fits
    assert one.to_json()["host_memory"]["fits"] is False


def test_a_sum_that_lacks_something_says_so():
    known, unknown = Estimate(7.0, "a test"), Estimate(None, "it has not run here")
    whole = replace(outlook(), times={"tune": known})
    assert "Time, one stage behind the other: 7 s\n" in outlook_text(whole)
    some = replace(whole, times={"ingest": unknown, "tune": known})
    assert "at least 7 s, and 1 stage(s) of which nothing is known" in outlook_text(some)
    assert some.to_json()["seconds_unknown"] == ["ingest"]
    bare = replace(
        outlook(), stages=("ingest",), disk=replace(whole.disk, unknown=("ingest", "prepare@image"))
    )
    assert "the media that ingest, prepare@image write" in outlook_text(bare)


def test_an_outlook_fits_where_memory_and_disk_do():
    alone, small = (training(memory=NEEDED, room=Room(size, "a test")) for size in (2**21, 2**19))
    assert outlook(image=training(), tune=alone).fits
    assert not outlook(image=alone, tune=small).fits
    assert not outlook(free=0, tune=alone).fits
