"""The audit's events for OpenLineage: exact versions, and how runs ended."""

import json
import uuid

import pytest

from tests.unit.registry.workspace import RULES, candidate, write_run
from uni_moe.artifacts import Layout, read_card
from uni_moe.audit_log import sound_log
from uni_moe.registry.openlineage import openlineage_lines, run_events
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register

FLOW = "7d2c4a52-0000-4000-8000-000000000001"


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


def versions(datasets):
    return {one["name"]: one["facets"]["version"]["datasetVersion"] for one in datasets}


def test_a_decision_of_the_audit_names_the_versions_it_looked_at(layout):
    candidate(layout, "a", 0.6)
    known = register(layout, reason="a try", who="ada", flow_run=FLOW)
    promote_if_better(layout, known, RULES, reason="a try", flow_run=FLOW)
    lines = openlineage_lines(layout, sound_log(layout).entries)
    events = [json.loads(line) for line in lines]
    assert [(e["job"]["name"], e["eventType"]) for e in events] == [
        (stage, kind) for stage in ("register", "gate") for kind in ("START", "COMPLETE")
    ]
    for event in events:
        assert set(versions(event["inputs"]).values()) == {known.model, known.report}
        assert event["run"]["facets"]["parent"]["run"]["runId"] == FLOW
        assert uuid.UUID(event["run"]["runId"]).version == 5
    assert openlineage_lines(layout, sound_log(layout).entries) == lines


def test_a_stage_in_the_audits_export_reads_its_parents_and_writes_its_artifact(layout):
    candidate(layout, "a", 0.6)
    card = read_card(layout.model)
    record = {"id": "1-tune", "stage": "tune", "status": "done", "started": "t", "ended": "u"}
    record["artifacts"] = {"artifacts/model": card.id}
    start, end = run_events(record, {card.id: ("artifacts/model", card)}, {})
    assert versions(start["inputs"]) == versions(end["inputs"]) == dict(card.parents)
    assert (start["outputs"], versions(end["outputs"])) == ([], {"artifacts/model": card.id})
    assert (start["eventTime"], end["eventTime"]) == ("t", "u")


@pytest.mark.parametrize(
    "status, silent_s, kinds",
    [
        ("running", 0, ["START"]),
        ("running", 99, ["START", "ABORT"]),
        ("failed", 0, ["START", "FAIL"]),
    ],
)
def test_a_run_in_the_audits_export_ends_as_it_did(layout, status, silent_s, kinds):
    write_run(layout, "1-tune", status=status, silent_s=silent_s)
    events = [json.loads(line) for line in openlineage_lines(layout, ())]
    assert [event["eventType"] for event in events] == kinds
