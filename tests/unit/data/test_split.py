from __future__ import annotations

from collections import Counter

from uni_moe.config import Split
from uni_moe.data.split import split_of

KEYS = [f"source/{i}" for i in range(4000)]


def test_shares_are_kept():
    counts = Counter(split_of(key, Split(0.05, 0.10)) for key in KEYS)
    assert abs(counts["test"] / 4000 - 0.10) < 0.02
    assert abs(counts["validation"] / 4000 - 0.05) < 0.015


def test_a_larger_share_only_takes_in_more():
    small = {key for key in KEYS if split_of(key, Split(0.05, 0.10)) == "test"}
    large = {key for key in KEYS if split_of(key, Split(0.05, 0.20)) == "test"}
    assert small < large


def test_samples_of_one_record_share_a_split():
    for key in KEYS[:200]:
        splits = {split_of(f"{key}{end}", Split(0.3, 0.3)) for end in ("", "#a", "#b.1", "#2")}
        assert len(splits) == 1


def test_shares_of_zero_leave_all_to_training():
    assert {split_of(key, Split(0.0, 0.0)) for key in KEYS} == {"train"}
