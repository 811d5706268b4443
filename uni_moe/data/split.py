"""The split of a sample without an official one: a pure function of its key and the shares."""

from __future__ import annotations

import hashlib

from uni_moe.config import Split


def split_of(key: str, shares: Split) -> str:
    """Return train, validation or test.

    Each key falls on its own point of [0, 1), so a sample that is added or removed moves no other,
    and a larger share only takes in more. Samples of one record (`a/b#x`, `a/b#y`) share a point.
    """
    record = key.partition("#")[0]
    digest = hashlib.sha256(f"split {record}".encode("utf-8", errors="surrogatepass")).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    if point < shares.test_share:
        return "test"
    if point >= 1 - shares.validation_share:
        return "validation"
    return "train"
