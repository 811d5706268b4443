import hashlib

import pytest

from uni_moe import merkle
from uni_moe.merkle import Paths, Tree, leads_to, leaf_hash, tree_of


def by_hand(entries):
    """The definition of RFC 6962, section 2.1, as it is written there."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return hashlib.sha256(b"\x01" + by_hand(entries[:k]) + by_hand(entries[k:])).digest()


def entries(count):
    return [f"entry {i}".encode() for i in range(count)]


@pytest.mark.parametrize("count", range(34))
def test_the_root_is_the_definitions(count):
    assert tree_of(map(leaf_hash, entries(count))).root() == by_hand(entries(count))


def test_the_roots_of_the_published_example():
    """The inputs and roots that certificate transparency's own implementations test with."""
    inputs = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    tree = Tree()
    roots = []
    for text in inputs:
        tree.add(leaf_hash(bytes.fromhex(text)))
        roots.append(tree.root().hex())
    assert roots[0] == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert roots[1] == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert roots[-1] == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 20])
def test_a_tree_goes_on_from_what_it_kept(count):
    leaves = [leaf_hash(entry) for entry in entries(40)]
    kept = tree_of(leaves[:count]).to_json()
    assert len(kept["peaks"]) == count.bit_count()
    tree = Tree.from_json(kept)
    for leaf in leaves[count:]:
        tree.add(leaf)
    assert tree.root() == by_hand(entries(40))


@pytest.mark.parametrize("count", [*range(1, 18), 31, 32, 33])
def test_every_entry_is_proved_at_its_place_and_at_no_other(count):
    leaves = [leaf_hash(entry) for entry in entries(count)]
    root, paths = tree_of(leaves).root(), Paths(leaves)
    for index, leaf in enumerate(leaves):
        path = paths.of(index)
        told = {"leaf": leaf, "size": count, "path": path}
        assert leads_to(root, index=index, **told)
        assert not any(leads_to(root, index=i, **told) for i in range(-1, count + 1) if i != index)
        assert not leads_to(root, index=index, **told | {"leaf": leaf_hash(b"another")})
        assert not leads_to(root, index=index, **told | {"path": [*path, leaf]})


def path_by_hand(index, entries):
    """The definition of RFC 6962, section 2.1.1, as it is written there."""
    if len(entries) == 1:
        return []
    k = 1
    while k * 2 < len(entries):
        k *= 2
    if index < k:
        return [*path_by_hand(index, entries[:k]), by_hand(entries[k:])]
    return [*path_by_hand(index - k, entries[k:]), by_hand(entries[:k])]


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 20, 33])
def test_the_path_of_every_entry_is_the_definitions(count):
    paths = Paths(map(leaf_hash, entries(count)))
    for index in range(count):
        assert paths.of(index) == path_by_hand(index, entries(count))


def test_all_proofs_of_a_tree_hash_each_of_its_nodes_once(monkeypatch):
    hashed = []
    node_hash = merkle.node_hash
    monkeypatch.setattr(merkle, "node_hash", lambda *two: hashed.append(two) or node_hash(*two))
    paths = Paths(map(leaf_hash, entries(1000)))
    assert len([paths.of(index) for index in range(1000)]) == 1000
    assert len(hashed) == 999
