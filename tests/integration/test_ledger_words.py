"""A phase's ledger on disk: whole as trained, found where it was touched, shown and proved."""

import json
import shutil

import pytest
import yaml

from tests.house.code_deps import ROOT
from tests.integration.test_smallest_road import smallest_data
from uni_moe.artifacts import CARD, Layout, read_card, read_json, sha256_file, write_json
from uni_moe.cli import main
from uni_moe.data.exposures import FILE, leaf_of, read_entries, write_entries
from uni_moe.merkle import leads_to, leaf_hash, tree_of

STAGES = ("ingest", "validate", "prepare@audio", "prepare@text", "foundation@audio")
PHASE = "align@audio"
STEPS, BATCH = 5, 3


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """Train one connector, with everything that it needs and nothing else."""
    root = tmp_path_factory.mktemp("ledger")
    (root / "data").mkdir()
    shutil.copytree(ROOT / "data_contracts", root / "data_contracts")
    data = smallest_data()
    data["align"]["audio"] |= {"steps": STEPS, "batch_size": BATCH, "save_every_steps": 2}
    (root / "params.yaml").write_text(yaml.safe_dump(data))
    for stage in (*STAGES, "foundation@language", PHASE):
        assert main(["--workspace", str(root), stage]) == 0
    return Layout(root)


@pytest.fixture
def layout(road, tmp_path):
    """A copy of the test's own."""
    return Layout(shutil.copytree(road.root, tmp_path / "copy"))


def ledger(layout, *words):
    return main(["--workspace", str(layout.root), "ledger", *words])


def entries_of(layout):
    return list(read_entries(layout.aligned("audio") / FILE))


def checked(layout, capsys):
    """Return the exit code of a check, and what it says."""
    code = ledger(layout, "check", "--json")
    (told,) = json.loads(capsys.readouterr().out)
    return code, told


def test_a_phases_ledger_is_what_seed_params_and_corpus_say(road, capsys):
    code, told = checked(road, capsys)
    assert (code, told["problems"], told["difference"]) == (0, [], None)
    assert told["stage"] == PHASE
    assert told["entries"] == STEPS * BATCH == len(entries_of(road))
    assert told["root"] == told["recomputed"] == told["kept"]
    assert read_card(road.aligned("audio")).results["ledger"]["root"] == told["root"]


def test_a_phase_accounts_for_every_listed_sample_in_its_card(road):
    results = read_card(road.aligned("audio")).results
    account = results["exposure"]["playground"]["audio"]
    samples, tokens = account["samples"], account["tokens"]
    entries = entries_of(road)
    assert samples["listed"] == read_card(road.samples("audio")).results["listed"] == 7
    assert samples["held_out"] == 3
    assert samples["seen"] == len({entry.key for entry in entries})
    assert samples["listed"] == sum(count for name, count in samples.items() if name != "listed")
    assert tokens["accepted"] == sum(n for name, n in tokens.items() if name != "accepted")
    assert account["draws"] == STEPS * BATCH
    assert account["tokens_learned"] == sum(entry.tokens for entry in entries)


def forged(layout, entries):
    """Put other entries into the ledger, and the file's hash and root into the card."""
    folder = layout.aligned("audio")
    write_entries(folder / FILE, entries)
    card = read_json(folder / CARD)
    card["files"][FILE] = sha256_file(folder / FILE)
    card["results"]["ledger"] = {
        "entries": len(entries),
        "root": tree_of(map(leaf_of, entries)).root().hex(),
    }
    write_json(folder / CARD, card)


def delete(entries):
    return entries[:6] + entries[7:]


def add(entries):
    return [*entries[:6], entries[2], *entries[6:]]


def reorder(entries):
    return [*entries[:6], entries[7], entries[6], *entries[8:]]


def change(entries):
    return [*entries[:6], entries[6]._replace(tokens=99), *entries[7:]]


@pytest.mark.parametrize(
    ("harm", "kind"),
    [(delete, "deleted"), (add, "added"), (reorder, "reordered"), (change, "changed")],
)
@pytest.mark.parametrize("hand", ["clumsy", "careful"])
def test_one_touched_entry_of_a_ledger_is_found_and_named(layout, capsys, harm, kind, hand):
    entries = harm(entries_of(layout))
    if hand == "careful":
        forged(layout, entries)
    else:
        write_entries(layout.aligned("audio") / FILE, entries)
    code, told = checked(layout, capsys)
    assert code == 5
    assert (told["difference"]["kind"], told["difference"]["index"]) == (kind, 6)
    assert told["recomputed"] != told["kept"]
    assert ("recomputed root" in told["problems"][-1]) == (hand == "careful")


def test_another_root_in_the_card_of_a_ledger_is_found(layout, capsys):
    folder = layout.aligned("audio")
    card = read_json(folder / CARD)
    card["results"]["ledger"]["root"] = "0" * 64
    write_json(folder / CARD, card)
    code, told = checked(layout, capsys)
    assert (code, told["difference"], len(told["problems"])) == (5, None, 2)


def test_a_ledger_that_is_gone_or_torn_is_told(layout, capsys):
    file = layout.aligned("audio") / FILE
    file.write_bytes(file.read_bytes()[:-30])
    assert ledger(layout, "check") == 5
    assert "cannot be read" in capsys.readouterr().err
    file.unlink()
    assert ledger(layout, "check") == 5
    assert "entry 0 (step 1, slot 0" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["show", "prove"])
def test_a_question_to_a_ledger_that_is_gone_torn_or_never_was_is_answered(layout, capsys, word):
    key, folder = entries_of(layout)[4].key, layout.aligned("audio")
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-30])
    assert ledger(layout, word, key) == 5
    assert "cannot be read" in capsys.readouterr().err
    (folder / FILE).unlink()
    assert ledger(layout, word, key, PHASE) == 5
    assert "dvc checkout" in capsys.readouterr().err
    card = read_json(folder / CARD)
    del card["results"]["ledger"]
    write_json(folder / CARD, card)
    assert ledger(layout, word, key) == 5
    assert "keeps no ledger" in capsys.readouterr().err


def test_a_ledger_of_another_corpus_is_not_judged(layout, capsys):
    params = layout.root / "params.yaml"
    before = params.read_text()
    assert before.count("audio: 4") == 1
    params.write_text(before.replace("audio: 4", "audio: 5"))
    for stage in ("ingest", "validate", "prepare@audio"):
        assert main(["--workspace", str(layout.root), stage]) == 0
    assert ledger(layout, "check", PHASE) == 5
    told = capsys.readouterr().err
    assert "artifacts/corpus/audio is not the one that align@audio learned from" in told
    assert "dvc checkout" in told


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("check", "tune"), 5, "no artifact"),
        (("check", "nobody"), 2, "names 0 registered models"),
        (("show", "playground/nobody"), 3, "No ledger here has seen"),
        (("show", "abc"), 3, "No ledger here has seen"),
    ],
)
def test_a_question_about_no_ledger_is_answered(road, capsys, words, code, said):
    assert ledger(road, *words) == code
    assert said in capsys.readouterr().err


def test_the_steps_that_a_sample_was_seen_at_are_shown_from_the_ledger(road, capsys):
    entries = entries_of(road)
    one = entries[4]
    for name in (one.key, one.key.removesuffix("#caption"), one.sample, one.sample[:12]):
        assert ledger(road, "show", name, "--json") == 0
        rows = json.loads(capsys.readouterr().out)
        assert [row["index"] for row in rows] == [
            place for place, entry in enumerate(entries) if entry.sample == one.sample
        ]
        assert {row["stage"] for row in rows} == {PHASE}
    assert ledger(road, "show", one.key) == 0
    assert f"step {one.step}  slot {one.slot}" in capsys.readouterr().out


def test_a_proof_from_the_ledger_needs_nothing_else(road, capsys):
    one = entries_of(road)[4]
    assert ledger(road, "prove", one.key, "--json") == 0
    for proof in json.loads(capsys.readouterr().out):
        row = proof["entry"]
        line = (
            f"{row['step']} {row['slot']} {row['tokens']} {row['truncated']} {row['sample']} "
            f"{row['modality']} {row['source']} {row['key']}"
        )
        assert leads_to(
            bytes.fromhex(proof["root"]),
            leaf=leaf_hash(line.encode()),
            index=proof["index"],
            size=proof["size"],
            path=[bytes.fromhex(step) for step in proof["path"]],
        )


def test_a_ledger_that_was_touched_proves_nothing(layout, capsys):
    entries = entries_of(layout)
    write_entries(layout.aligned("audio") / FILE, change(entries))
    assert ledger(layout, "prove", entries[4].key) == 5
    assert "does not lead to the root" in capsys.readouterr().err


def test_removed_and_refused_samples_are_accounted_for(layout):
    keys = sorted(entry.key for entry in entries_of(layout))
    gone = keys[0].removesuffix("#caption")
    assert main(["--workspace", str(layout.root), "remove", gone]) == 0
    for stage in ("ingest", "validate", "prepare@audio", PHASE):
        assert main(["--workspace", str(layout.root), stage]) == 0
    results = read_card(layout.aligned("audio")).results
    samples = results["exposure"]["playground"]["audio"]["samples"]
    assert (samples["listed"], samples["removed"]) == (7, 1)
    assert samples["listed"] == sum(count for name, count in samples.items() if name != "listed")
    assert gone not in {entry.key.removesuffix("#caption") for entry in entries_of(layout)}
    assert ledger(layout, "check") == 0


@pytest.mark.parametrize(
    ("positions", "nothing"),
    [pytest.param(26, False, marks=pytest.mark.operate), (20, True)],  # packing's road has the one
)
def test_tokens_that_were_cut_away_are_accounted_for(layout, positions, nothing):
    file = layout.root / "params.yaml"
    data = yaml.safe_load(file.read_text())
    data["align"]["audio"]["packing"] = {
        "row_positions": positions,
        "rows": None,
        "on_too_long": "truncate",
    }
    file.write_text(yaml.safe_dump(data))
    assert main(["--workspace", str(layout.root), PHASE]) == 0
    account = read_card(layout.aligned("audio")).results["exposure"]["playground"]["audio"]
    samples, tokens = account["samples"], account["tokens"]
    assert (samples["truncated_to_nothing"] > 0) == nothing
    assert tokens["truncated"] + tokens["truncated_to_nothing"] > 0
    assert tokens["accepted"] == sum(n for name, n in tokens.items() if name != "accepted")
    assert ledger(layout, "check") == 0
