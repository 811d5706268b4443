import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from contract_tables import (
    CONTRACT,
    bytes_of,
    row,
    run,
    sample,
    samples,
    table,
    tables,
    workspace,
)

from uni_moe.artifacts import read_card
from uni_moe.data.contract import check, judge, open_contract, validate
from uni_moe.data.contract_report import page
from uni_moe.data.contract_rules import TABLE_COLUMNS, Rule, parse_contract
from uni_moe.data.copies import copies
from uni_moe.data.validated import read_accepted, read_quarantine
from uni_moe.data.verdict import conserve
from uni_moe.errors import ConfigError, ContractError, StageError
from uni_moe.records import MODALITIES, ContractReport, SetCount

# One breach of every sample rule: code -> (modality, what the row says instead).
BREACHES = {
    "malformed_key": ("text", {"key": "no-slash"}),
    "duplicate_key": ("text", {"key": "made/text-005"}),
    "malformed_id": ("image", {"id": "0123"}),
    "copied_content": ("text", {}),  # takes the conversation of the test sample, below
    "unknown_split": ("video", {"split": "dev"}),
    "unknown_modality": ("text", {"modality": "smell"}),
    "malformed_task": ("text", {"task": "caption"}),
    "missing_license": ("text", {"license": None}),
    "unknown_license": ("text", {"license": " Unknown "}),
    "too_few_turns": ("text", {"n_turns": 1}),
    "user_does_not_begin": ("text", {"first_role": "assistant"}),
    "assistant_does_not_end": ("text", {"last_role": "user"}),
    "roles_do_not_alternate": ("text", {"roles_alternate": False}),
    "empty_answer": ("text", {"answer_chars": 0}),
    "long_answer": ("text", {"longest_answer_chars": 20001}),
    "empty_prompt": ("text", {"prompt_chars": 0}),
    "slots_do_not_match": ("image", {"slots_match": False}),
    "missing_media": ("image", {"media_found": False}),
    "undecodable_media": ("image", {"decode_ok": False}),
    "unmeasured_picture": ("image", {"width_px": None}),
    "unmeasured_sound": ("audio", {"duration_s": None}),
    "heavy_media": ("image", {"media_bytes": 2**30 + 1}),
    "narrow_picture": ("image", {"width_px": 7}),
    "wide_picture": ("image", {"widest_px": 16385}),
    "low_picture": ("video", {"height_px": 7}),
    "high_picture": ("video", {"highest_px": 16385}),
    "still_film": ("video", {"frames": 1}),
    "short_sound": ("audio", {"shortest_s": 0.05}),
    "long_speech": ("speech", {"duration_s": 600.1}),
    "long_audio": ("audio", {"duration_s": 600.1}),
    "video_duration": ("video", {"duration_s": 3600.5}),
    "low_rate": ("speech", {"sample_rate_hz": 3999}),
    "high_rate": ("speech", {"highest_rate_hz": 192001}),
    "channels": ("audio", {"channels": 9}),
}

# One breach of every table rule: code -> the tables and the sources in params.yaml.
WRONG_SETS = {
    "empty_source": (tables(), ["made", "absent"]),
    "refused_share": (tables(image=table("image", 60, decode_ok=False)), ["made"]),
    "refused_share_small": (tables(2, image=table("image", 12, decode_ok=False)), ["made"]),
    "nothing_to_train_on": (tables(2), ["made"]),
    "nothing_to_validate_on": (
        {name: table(name, 1) for name in MODALITIES},
        ["made"],
    ),
    "modality_without_test": (tables(audio=table("audio")[2:]), ["made"]),
}


@pytest.fixture(scope="module")
def contract():
    return open_contract(CONTRACT)


def planted():
    """Return tables in which every sample rule is broken once, and the broken rows' keys."""
    all_tables, keys = tables(40), {}
    for place, (code, (modality, changes)) in enumerate(BREACHES.items(), start=6):
        rows = all_tables[modality]
        told = {"conversation": rows[0]["conversation"]} if code == "copied_content" else changes
        rows[place] = rows[place] | told
        keys[code] = rows[place]["key"]
    return all_tables, keys


def judged_reasons(contract, all_tables):
    judged, report = judge(contract, all_tables, ["made"])
    return {
        refused["key"]: codes
        for part in judged.values()
        for refused, codes in zip(part.quarantined, part.reasons, strict=True)
    }, report


def test_whole_samples_are_all_accepted(contract):
    reasons, report = judged_reasons(contract, tables())
    assert reasons == {}
    assert report.kept
    assert all(rule.failed == 0 for rule in report.rules)


def test_every_rule_has_a_planted_breach(contract):
    by_level = {
        level: {r.code for r in contract.rules if r.level == level} for level in ("sample", "table")
    }
    assert by_level == {"sample": set(BREACHES), "table": set(WRONG_SETS)}


@pytest.fixture(scope="module")
def planted_verdict(contract):
    all_tables, keys = planted()
    return *judged_reasons(contract, all_tables), keys


@pytest.mark.parametrize("code", BREACHES)
def test_a_broken_sample_is_set_aside_with_its_reason(planted_verdict, code):
    reasons, report, keys = planted_verdict
    assert reasons[keys[code]] == (code,)
    found = {rule.code: rule for rule in report.rules}[code]
    assert found.failed == len(found.examples) == (2 if code == "duplicate_key" else 1)
    assert keys[code] in found.examples[-1]
    assert found.why
    assert found.remedy


def test_breaches_of_samples_refuse_no_other_sample(planted_verdict):
    reasons, report, keys = planted_verdict
    assert set(reasons) == set(keys.values())  # the two of duplicate_key share one key
    assert report.kept
    assert sum(item.quarantined for item in report.sets) == len(BREACHES) + 1


@pytest.mark.parametrize("code", WRONG_SETS)
def test_a_wrong_whole_set_breaks_the_contract(contract, code):
    all_tables, sources = WRONG_SETS[code]
    _, report = judge(contract, all_tables, sources)
    assert not report.kept
    assert code in [breach.partition(":")[0] for breach in report.breaches]


def test_modalities_without_samples_are_free(contract):
    only_images = {name: [] for name in MODALITIES} | {"image": table("image")}
    _, report = judge(contract, only_images, ["made"])
    assert report.kept


def test_one_bad_file_of_four_does_not_end_it(contract):
    rows = table("image", 4)
    rows[3] = rows[3] | {"decode_ok": False}
    _, report = judge(contract, {name: [] for name in MODALITIES} | {"image": rows}, ["made"])
    assert report.kept


def test_a_sample_keeps_all_its_reasons(contract):
    rows = table("image", 7)
    rows[6] = rows[6] | {
        "problem_codes": "missing_media,unsafe_path",
        "problem_details": json.dumps(["../x", "x"]),
        "media_found": False,
        "split": "dev",
        "answer_chars": 0,
    }
    reasons, report = judged_reasons(contract, tables(image=rows))
    assert reasons == {
        "made/image-006": ("empty_answer", "missing_media", "unknown_split", "unsafe_path")
    }
    assert report.reasons["unsafe_path"].found_by == "ingest"
    assert report.reasons["unsafe_path"].examples == ("made/image-006: ../x; x",)
    assert report.reasons["empty_answer"].found_by == "contract"


def test_an_unreadable_record_has_only_the_reasons_that_ingest_gave(contract):
    rows = table("text", 7)
    blank = dict.fromkeys(rows[6]) | {
        name: rows[6][name] for name in ("key", "id", "source", "split", "modality", "conversation")
    }
    rows[6] = blank | {"task": "", "problem_codes": "broken_json", "problem_details": '["line 7"]'}
    reasons, _ = judged_reasons(contract, tables(text=rows))
    assert reasons == {"made/text-006": ("broken_json",)}


def test_a_rule_that_raises_is_no_breach():
    rule = Rule(
        type="expect_column_values_to_match_regex",
        kwargs={"column": "name", "regex": "("},
        when={},
        code="torn",
        level="table",
        why="w",
        remedy="r",
    )
    rows = [dict.fromkeys(TABLE_COLUMNS) | {"name": "a"}]
    with pytest.raises(StageError, match=r"torn: .*"):
        check([rule], rows, TABLE_COLUMNS)


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (["train", "test"], ["b", None]),
        (["validation", "test"], ["b", None]),
        (["train", "validation"], ["b", None]),
        (["test", "test"], [None, "a"]),
        (["train", "train"], [None, None]),
    ],
)
def test_the_held_out_copy_stays(splits, expected):
    one = sample("image", 3)
    rows = [row(one, key=key, split=split) for key, split in zip("ab", splits, strict=True)]
    assert copies(rows, refused(rows)) == expected


def refused(rows):
    return [item["problem_codes"] is not None for item in rows]


def test_a_held_out_sample_that_is_refused_keeps_nobody_out_of_training(contract):
    one = sample("image", 3)
    held = row(one, key="made/a", split="test", license=None)
    trained = row(one, key="made/b", split="train")
    rows = [*table("image", 3), held, trained]
    reasons, _ = judged_reasons(contract, tables(image=rows))
    assert reasons["made/a"] == ("missing_license",)
    assert "made/b" not in reasons


def test_a_training_round_is_a_copy_of_the_held_out_item_that_asks_the_same():
    one, more = sample("image", 0), sample("image", 1)
    asks, says = one.turns[0], one.turns[1]
    loud = dataclasses.replace(says, parts=tuple(part.upper() for part in says.parts))
    long = dataclasses.replace(more, media=one.media, turns=(*more.turns, asks, loud))
    rows = [row(one, key="a", split="test"), row(long, key="b", split="train")]
    assert copies(rows, refused(rows)) == [None, "a"]
    rows = [rows[0], row(more, key="b", split="train")]
    assert copies(rows, refused(rows)) == [None, None]


def test_other_frames_of_a_film_are_no_copy():
    one = sample("video", 0)
    other = dataclasses.replace(one, media=(dataclasses.replace(one.media[0], frames=(1, 2)),))
    elsewhere = dataclasses.replace(one, media=(dataclasses.replace(one.media[0], shard="y"),))
    rows = [row(one, key="a"), row(other, key="b"), row(elsewhere, key="c")]
    assert copies(rows, refused(rows)) == [None, None, "a"]


def test_a_lost_sample_is_an_error():
    count = SetCount("image", "made", 3, 1, 1, {}, {})
    with pytest.raises(StageError, match="made, image: 3 listed, 1 accepted, 1 quarantined"):
        conserve([count])


def by_hand(rows):
    """Count refused rows of one table the slow way: for three rules, without the contract."""
    return sorted(
        item["key"]
        for item in rows
        if (item["width_px"] is not None and item["width_px"] < 8)
        or item["answer_chars"] == 0
        or item["split"] not in ("train", "validation", "test")
    )


def test_the_verdict_agrees_with_counting_by_hand(contract):
    rows = table("image", 30)
    for place, item in enumerate(rows):
        item["width_px"] = place
        item["answer_chars"] = place % 5
        item["split"] = "dev" if place == 13 else item["split"]
    reasons, report = judged_reasons(contract, tables(40, image=rows))
    assert sorted(reasons) == by_hand(rows)
    for item in report.sets:
        assert item.listed == item.accepted + item.quarantined
        assert item.accepted == sum(item.splits.values())


def test_the_report_survives_json(planted_verdict):
    _, report, _ = planted_verdict
    again = ContractReport.from_json(json.loads(json.dumps(report.to_json())))
    assert again == report


def test_the_page_escapes_what_samples_say(contract):
    rows = table("text", 7)
    evil = "<script>alert('x')</script>\"&"
    rows[6] = rows[6] | {"key": f"made/{evil}", "source": evil, "license": None, "split": evil}
    _, report = judge(contract, tables(text=rows), ["made", evil])
    text = page(report)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_the_page_asks_for_nothing_from_elsewhere(contract):
    _, report = judge(contract, tables(), ["made", "absent"])
    text = page(report)
    assert not re.search(r"https?:|src=|@import|url\(|<link|<iframe", text)
    assert "empty_source" in text
    assert page(report) == text


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.update(owner="me"), "unknown key 'owner'"),
        (lambda c: c.pop("version"), "'version' is missing"),
        (lambda c: c.update(version="1"), "version: expected a whole number"),
        (lambda c: c.update(expectations=[]), "at least one rule"),
        (lambda c: c["expectations"][0].update(mostly=0.9), "unknown key 'mostly'"),
        (lambda c: c["expectations"][0]["kwargs"].update(mostly=0.9), "would excuse rows"),
        (lambda c: c["expectations"][0]["kwargs"].update(column="kee"), "no column 'kee'"),
        (lambda c: c["expectations"][0].update(when={"modalty": "text"}), "no column 'modalty'"),
        (lambda c: c["expectations"][0].update(when={"modality": []}), "no value"),
        (lambda c: c["expectations"][0]["meta"].pop("why"), "'why' is missing"),
        (lambda c: c["expectations"][0]["meta"].update(remedy=" "), "remedy: expected text"),
        (lambda c: c["expectations"][0]["meta"].update(level="row"), "'row' is not one of"),
        (lambda c: c["expectations"][0]["meta"].update(code="A b"), "lower_case"),
        (lambda c: c["expectations"][1]["meta"].update(code="malformed_key"), "two rules"),
    ],
)
def test_a_contract_is_closed(change, problem):
    data = yaml.safe_load(CONTRACT.read_text(encoding="utf-8"))
    change(data)
    _, problems = parse_contract(data)
    assert any(problem in told for told in problems), problems


def test_all_problems_of_a_contract_are_told_at_once(tmp_path):
    data = yaml.safe_load(CONTRACT.read_text(encoding="utf-8"))
    data["expectations"][0]["type"] = "expect_nothing"
    data["expectations"][1]["type"] = "expect_table_row_count_to_be_between"
    data["expectations"][2]["kwargs"]["pattern"] = "x"
    data["expectations"][3]["hint"] = "x"
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        open_contract(path)
    for part in (
        "4 problem(s)",
        "malformed_key: 'expect_nothing'",
        "duplicate_key: ",
        "pattern",
        "'hint'",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("text", [None, "a: [", "3"])
def test_a_contract_that_is_no_contract_is_a_config_error(tmp_path, text):
    if text is not None:
        (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        open_contract(tmp_path / "c.yaml")


def break_audio(modality, rows):
    if modality == "audio":
        rows[5] = rows[5] | {"sample_rate_hz": 100}
    return rows


def break_most_audio(modality, rows):
    return [item | {"decode_ok": False} for item in rows] if modality != "text" else rows


def test_the_stage_conserves_every_sample(tmp_path):
    layout = workspace(tmp_path, edit=break_audio)
    run("validate", layout, validate)
    for modality in MODALITIES:
        listed = pq.read_table(layout.samples(modality) / "manifest.parquet")["key"].to_pylist()
        accepted = [item["key"] for item in read_accepted(layout.validated(modality))]
        refused = [item["key"] for item in read_quarantine(layout.validated(modality))]
        assert sorted(accepted + refused) == sorted(listed)
        assert refused == (["made/audio-005"] if modality == "audio" else [])
    assert read_quarantine(layout.validated("audio"))[0]["reasons"] == "low_rate"


def test_the_run_tells_which_contract_it_read(tmp_path):
    layout = workspace(tmp_path)
    run("validate", layout, validate)
    (record,) = layout.runs.glob("*-validate-*/run.json")
    (read,) = json.loads(record.read_text())["read"]
    contract = Path(read["name"])
    assert (read["namespace"], contract.is_absolute(), contract.name) == (
        "file",
        True,
        "manifest.yaml",
    )
    rules = read_card(layout.validated("text")).params["contract_sha256"]
    assert read["version"] == rules


def test_the_same_samples_give_the_same_bytes(tmp_path):
    one, two = workspace(tmp_path / "one"), workspace(tmp_path / "two")
    run("validate", one, validate)
    run("validate", two, validate)
    assert bytes_of(one.artifacts / "validated") == bytes_of(two.artifacts / "validated")


def test_an_edit_in_audio_leaves_the_other_modalities_bytes(tmp_path):
    layout = workspace(tmp_path)
    run("validate", layout, validate)
    before = {modality: bytes_of(layout.validated(modality)) for modality in MODALITIES}
    samples(layout, "audio", edit=break_audio)
    run("validate", layout, validate)
    for modality in MODALITIES:
        same = bytes_of(layout.validated(modality)) == before[modality]
        assert same == (modality != "audio")


def test_a_broken_contract_leaves_a_report_and_accepts_nothing(tmp_path):
    layout = workspace(tmp_path, edit=break_most_audio)
    layout.validated("text").mkdir(parents=True)  # what an earlier contract accepted
    with pytest.raises(ContractError) as caught:
        run("validate", layout, validate)
    assert str(layout.contract_report / "report.html") in str(caught.value)
    assert "refused_share_small: source made" in str(caught.value)
    assert "modality_without_test: modality image" in str(caught.value)
    assert "modality_without_test: modality speech" in str(caught.value)
    report = json.loads((layout.contract_report / "report.json").read_text(encoding="utf-8"))
    assert not ContractReport.from_json(report).kept
    assert (layout.contract_report / "report.html").is_file()
    assert not layout.validated("text").exists()


def test_importing_the_stage_does_not_import_great_expectations():
    code = "import sys, uni_moe.data.contract; print('great_expectations' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
