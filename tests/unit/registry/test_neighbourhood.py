"""What stands around an artifact, against a slow walk by hand on random graphs."""

import os
import random
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import create_engine, insert
from sqlalchemy.orm import Session

from tests.unit.registry import workspace
from uni_moe.artifacts import Layout, read_card
from uni_moe.errors import LineageError
from uni_moe.registry import neighbourhood as module
from uni_moe.registry.artifact_card import artifact_card
from uni_moe.registry.naming import meant
from uni_moe.registry.neighbourhood import Link, around, neighbourhood
from uni_moe.registry.schema import METADATA
from uni_moe.registry.tables import ArtifactRow, EdgeRow
from uni_moe.registry.write import register

KINDS = ("samples", "corpus", "model")


@pytest.fixture
def session():
    engine = create_engine("sqlite://")
    METADATA.create_all(engine)
    with Session(engine) as opened:
        yield opened
    engine.dispose()


def name_of(number):
    return f"{number:064x}"


def write(session, kinds, edges):
    """Write artifacts by number and child -> parent edges; those without a kind have no card."""
    for number, kind in kinds.items():
        if kind is not None:
            told = {"stage": "s", "kind": kind, "code": "", "params": {}, "results": {}}
            session.add(ArtifactRow(id=name_of(number), name=f"a/{number}", **told))
    session.flush()
    rows = [
        {"child": name_of(child), "parent": name_of(parent), "name": f"p{parent}"}
        for child, parent in edges
    ]
    session.execute(insert(EdgeRow), rows)


def random_graph(seed):
    draw = random.Random(seed)
    kinds = {number: draw.choice(KINDS) for number in range(40)}
    edges = {
        (child, parent)
        for child in range(1, 40)
        for parent in draw.sample(range(child), min(child, draw.randint(0, 3)))
    }
    roots = {parent for _, parent in edges} - {child for child, _ in edges}
    kinds |= dict.fromkeys(draw.sample(sorted(roots), len(roots) // 2))
    return kinds, edges


def by_hand(edges, centre, steps, *, up):
    """Return number -> steps, by trying every edge again and again."""
    found = {centre: 0}
    for far in range(1, steps + 1):
        for child, parent in edges:
            one, other = (child, parent) if up else (parent, child)
            if found.get(one) == far - 1 and other not in found:
                found[other] = far
    return found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("way", ["up", "down", "both"])
def test_a_neighbourhood_is_what_a_walk_by_hand_finds(session, seed, way):
    kinds, edges = random_graph(seed)
    write(session, kinds, edges)
    centre = random.Random(seed + 1).randrange(1, 40)
    told = around(session, name_of(centre), way=way, steps=2, kind=None, most=60)
    above = by_hand(edges, centre, 2, up=True) if way != "down" else {}
    below = by_hand(edges, centre, 2, up=False) if way != "up" else {}
    wanted = {name_of(one): far for one, far in below.items()}
    wanted |= {name_of(one): -far for one, far in above.items()}
    assert {one.id: one.steps for one in told.nodes} == wanted | {name_of(centre): 0}
    own = {int(one.id, 16) for one in told.nodes}
    between = sorted(edge for edge in edges if own.issuperset(edge))
    assert list(told.links) == [
        Link(name_of(child), name_of(parent), 0) for child, parent in between
    ]
    assert (told.left_out, told.is_endless, told.found) == (0, False, len(told.nodes) - 1)
    assert all(one.kind == kinds[int(one.id, 16)] for one in told.nodes)


@pytest.mark.parametrize("seed", [3, 13, 17, 18, 21, 24])  # whose last one has many above it
def test_of_one_kind_links_lead_through_what_is_hidden(session, seed):
    kinds, edges = random_graph(seed)
    write(session, kinds, edges)
    told = around(session, name_of(39), way="up", steps=40, kind="model", most=60)
    own = {int(one.id, 16) for one in told.nodes}
    assert own - {39} == {
        one for one in by_hand(edges, 39, 40, up=True) if kinds[one] == "model"
    } - {39}
    wanted = []
    for child in sorted(own):
        inner = [(one, parent) for one, parent in edges if one == child or one not in own]
        far = by_hand(inner, child, 40, up=True)
        wanted += [
            Link(name_of(child), name_of(parent), far[parent] - 1)
            for parent in sorted(own - {child})
            if parent in far
        ]
    assert list(told.links) == wanted
    assert max(link.through for link in wanted) > 1, "a graph that hides next to nothing"


def test_a_hub_is_cut_and_what_is_left_out_is_counted(session, monkeypatch):
    monkeypatch.setattr(module, "WALKED", 50)
    monkeypatch.setattr(module, "COUNTED", 80)
    write(session, dict.fromkeys(range(200), "model"), {(n, 100) for n in range(200) if n != 100})
    told = around(session, name_of(100), way="both", steps=3, kind=None, most=20)
    assert len(told.nodes) == 21
    assert told.found == 49
    assert (told.left_out, told.is_endless) == (80 - 49, True)


def test_where_both_sides_are_full_each_has_half(session):
    edges = {(50, n) for n in range(30)} | {(n, 50) for n in range(51, 81)}
    write(session, dict.fromkeys(range(81), "model"), edges)
    told = around(session, name_of(50), way="both", steps=1, kind=None, most=20)
    assert sum(one.steps < 0 for one in told.nodes) == 10
    assert sum(one.steps > 0 for one in told.nodes) == 10
    assert told.found == 60


def test_an_artifact_whose_card_is_gone_is_shown_by_the_name_that_its_child_knew(session):
    write(session, {1: None, 2: "model"}, {(2, 1)})
    told = around(session, name_of(2), way="up", steps=1, kind=None, most=9)
    assert [(one.name, one.kind) for one in told.nodes] == [("a/2", "model"), ("p1", None)]
    lost = around(session, name_of(1), way="down", steps=1, kind=None, most=9)
    assert lost.links == (Link(name_of(2), name_of(1)),)


def test_an_artifact_that_nothing_names_is_told(session):
    with pytest.raises(LineageError, match="knows no artifact 0000"):
        around(session, name_of(9), way="both", steps=3, kind=None, most=9)


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path)
    workspace.candidate(made, "weights", 0.9)
    register(made, who="me", reason="test")
    return made


def test_names_numbers_and_beginnings_of_ids_mean_one_artifact(layout):
    model = read_card(layout.model).id
    for said in ("1", "artifacts/model", model, model[:8], None):
        assert [one.id for one in meant(layout, said)] == [model]
    told = neighbourhood(layout, model)
    assert told.nodes[0].versions == (1,)
    assert {one.kind for one in told.nodes} == {"samples", "corpus", "expert", "model", "report"}


@pytest.fixture
def paths(layout, tmp_path_factory):
    """Names of an artifact that lies in another workspace, from here, and of one beside ours."""
    elsewhere = Layout(tmp_path_factory.mktemp("elsewhere"))
    beside = Layout(layout.root / "beside")
    for one in (elsewhere, beside):
        workspace.candidate(one, "secret", 0.5)
    up = os.path.relpath(elsewhere.model, layout.root)
    names = (str(elsewhere.model), up, f"artifacts/../{up}", "beside/artifacts/model")
    assert all(read_card(layout.root / name).id for name in names)
    return names


def test_a_path_that_the_index_does_not_know_names_nothing_though_it_leads_to_a_card(
    layout, paths, monkeypatch
):
    monkeypatch.setattr("uni_moe.registry.naming.read_card", pytest.fail)
    for said in paths:
        assert meant(layout, said) == []


def test_a_card_that_is_named_like_a_path_is_meant_itself_and_not_what_the_path_leads_to(
    layout, paths, monkeypatch
):
    model = read_card(layout.model).id
    monkeypatch.setattr("uni_moe.registry.naming.read_card", pytest.fail)
    for said in paths:
        with closing(sqlite3.connect(layout.registry)) as connection, connection:
            changed = "update artifacts set name = ? where id = ?"
            assert connection.execute(changed, (said, model)).rowcount == 1
        assert [(one.id, one.name) for one in meant(layout, said)] == [(model, said)]


@pytest.mark.parametrize(
    "said", ["../../etc", "/", "artifacts", "%", "abc", "x" * 100_000, "7", "artifacts/../model"]
)
def test_what_names_nothing_is_never_looked_for_on_the_disk(layout, said, monkeypatch):
    monkeypatch.setattr("uni_moe.registry.naming.read_card", pytest.fail)
    assert meant(layout, said) == []


def test_an_artifact_that_was_made_again_is_meant_by_what_lies_there_now(layout):
    old = read_card(layout.model).id
    workspace.candidate(layout, "others", 0.95)
    register(layout, who="me", reason="test")
    assert [one.id for one in meant(layout, "artifacts/model")] == [read_card(layout.model).id]
    workspace.forget(layout)
    assert {one.id for one in meant(layout, "artifacts/model")} > {old}


def test_a_card_is_told_with_its_parents_and_version(layout):
    card = read_card(layout.model)
    told = artifact_card(layout, card.id)
    assert (told.parents, told.code, told.versions) == (card.parents, card.code, (1,))
    assert artifact_card(layout, "0" * 64) is None
