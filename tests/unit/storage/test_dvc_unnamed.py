"""What no lock names goes by its age, but never a part of a folder whose list stays."""

import json
import os

import pytest

from tests.unit.storage.test_dvc_data import listing, name_of, put
from uni_moe.storage.dvc_unnamed import locked_roots, unnamed
from uni_moe.storage.objects import Files

OLD_S, NOW_S, BEFORE_S = 1_000.0, 2_000_000.0, 1_000_000.0
SHARED, OWN, OTHER = b"shared", b"own", b"other"
LIST = listing(SHARED, OWN)


@pytest.mark.parametrize(
    "list_s, gone",
    [
        (NOW_S - 1, {name_of(OTHER)}),
        (OLD_S, {name_of(OTHER), name_of(SHARED), name_of(OWN), name_of(LIST, ".dir")}),
    ],
    ids=["young", "old"],
)
def test_the_old_files_of_a_list_go_only_with_it(tmp_path, list_s, gone):
    store = Files(tmp_path)
    put(store, {name_of(data): data for data in (SHARED, OWN, OTHER)})
    put(store, {name_of(LIST, ".dir"): LIST})
    for name in store.objects():
        at_s = list_s if name.endswith(".dir") else OLD_S
        os.utime(tmp_path / name, (at_s, at_s))
    assert set(unnamed(store, set(), NOW_S, before_s=BEFORE_S)) == gone


def test_a_lock_names_its_results_and_not_what_they_were_made_from():
    stage = {"deps": [{"path": "data", "md5": "0" * 32}], "outs": [{"path": "a", "md5": "1" * 32}]}
    assert locked_roots(json.dumps({"stages": {"one": stage}})) == {"1" * 32}
