"""The question `questions` generates what it says, and asks it."""

import argparse

from sqlalchemy import select

from benchmarks import questions
from benchmarks.asked_graph import write_graph
from benchmarks.setup import Setup
from uni_moe.artifacts import Layout
from uni_moe.registry.database import reading, writing
from uni_moe.registry.lineage import lineage
from uni_moe.registry.tables import ArtifactRow

SETUP = Setup(rounds=1, seed=0, threads=1, device="cpu", burst_s=0.1, tuned_only=False)


def test_a_small_graph_and_a_few_ledgers_are_asked(monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    sizes = argparse.Namespace(nodes=300, ledgers=6, each=600, asked=4, url=None)
    graph, exposures = questions.answer(SETUP, sizes)
    assert "lineage in a graph of 3" in graph.title
    assert exposures.title == "impact over 3,600 exposures"
    assert all(number.found is not None for case in (graph, exposures) for number in case.numbers)


def test_a_generated_model_has_the_roads_family(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    layout = Layout(tmp_path)
    with writing(layout) as session:
        graph = write_graph(session, 0, nodes=100)
    with reading(layout) as session:
        for row in session.scalars(select(ArtifactRow)):
            assert row.params, "a question reads the cards of what it tells"
            assert row.results
    names = {node.name for node in lineage(layout, graph.models[0]).up.values()}
    assert {"artifacts/experts/speech", "artifacts/foundation/language", "artifacts/model"} <= names
    assert len(names) == 29 - 1  # all of a road but the report
