"""Which versions stay: the rules as a table, and names of a store sorted by hand."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from uni_moe.housekeeping.keys import is_stray, keys_of, sort_names
from uni_moe.housekeeping.retention import kept_versions
from uni_moe.machine import RetentionSettings
from uni_moe.registry.read import Reign, Version

NOW = datetime(2026, 3, 1, tzinfo=UTC)
A, B = "a" * 64, "b" * 64


def version(number, *, days_old=100.0, verdict="refused", champion=False):
    at = (NOW - timedelta(days=days_old)).isoformat()
    model = f"{number:064x}"
    return Version(number, model, "r", at, "ada", "try", verdict, champion, Path(model))


def reign(number):
    return Reign(number, f"{number:064x}", "then", None, "run")


SIX = [
    version(1, verdict="promoted"),
    version(2, verdict="promoted"),
    version(3),
    version(4, verdict="waiting"),
    version(5, verdict="promoted", champion=True),
    version(6, days_old=1.0),
]
REIGNS = [reign(one) for one in (1, 2, 1, 5)]


@pytest.mark.parametrize(
    "versions, champions, days, stays",
    [
        (0, 1, 0.0, {4, 5}),
        (1, 1, 0.0, {4, 5, 6}),
        (4, 1, 0.0, {3, 4, 5, 6}),
        (0, 2, 0.0, {1, 4, 5}),  # version 1 came back before 5
        (0, 3, 0.0, {1, 2, 4, 5}),
        (0, 1, 2.0, {4, 5, 6}),
        (0, 1, 101.0, {1, 2, 3, 4, 5, 6}),
    ],
)
def test_a_version_stays_by_any_rule_and_says_which(versions, champions, days, stays):
    rules = RetentionSettings(versions, champions, days)
    kept = kept_versions(SIX, REIGNS, rules, NOW)
    assert {one.number for one in SIX if one.model in kept} == stays
    assert kept[SIX[4].model] == "the champion"
    assert all(kept.values())


NAMES = {
    f"{A}/model.sha256": 1,
    f"{A}/model/weights": 10,
    f"{A}/model/odd.sha256": 2,  # a file of the model, no key
    f"{A}/cards/artifacts/model.123.json": 3,
    f"{A}/report-1/report.json": 4,  # no sums: a push broke off
    f"{B}/model.sha256": 1,
    f"{B}/model/weights": 20,
    f"{B}/.model.{'0' * 32}/weights": 5,
    "runs/1.sha256": 1,
    "runs/1/run.json": 1,
    "runs/2/run.json": 7,
    "audit.jsonl": 9,
    ".lock": 0,
    ".workspace": 1,
    f".audit.jsonl.{'f' * 32}": 6,
    "somebody's notes.txt": 1,
    "folder/of/somebody": 1,
}


def test_keys_go_whole_and_what_no_key_holds_goes_but_for_our_own_and_for_others():
    found = sort_names(NAMES, lambda key: key.startswith(B))
    assert {key: set(own) for key, own in found.keys.items()} == {
        f"{B}/model": {f"{B}/model.sha256", f"{B}/model/weights"}
    }
    assert set(found.strays) == {
        f"{A}/report-1/report.json",
        f"{B}/.model.{'0' * 32}/weights",
        "runs/2/run.json",
        f".audit.jsonl.{'f' * 32}",
    }
    assert keys_of(NAMES) == {f"{A}/model", f"{B}/model", "runs/1"}


@pytest.mark.parametrize("seed", range(200))
def test_every_name_is_a_kept_keys_a_gone_keys_a_stray_or_not_ours(seed):
    dice = random.Random(seed)
    models = [f"{dice.getrandbits(256):064x}" for _ in range(3)]
    kept = {f"{one}/{part}" for one in models for part in ("model", "report-1", "graph-1-2")}
    whole = {key for key in kept if dice.random() < 0.7}
    gone = {key for key in whole if dice.random() < 0.5}
    names = {f"{key}/{dice.choice('xy')}/{n}.sha256": n for key in kept for n in range(3)}
    names |= {f"{key}.sha256": 1 for key in whole}
    names |= {f"{one}/cards/a/{n}.json": n for one in models for n in range(2)}
    found = sort_names(names, gone.__contains__)
    by_key = {key: {n for n in names if n.startswith((f"{key}/", f"{key}.sha"))} for key in kept}
    assert {key: set(own) for key, own in found.keys.items()} == {k: by_key[k] for k in gone}
    assert set(found.strays) == {name for key in kept - whole for name in by_key[key]}
    assert not any(is_stray(name) for name in names if "/cards/" in name)
