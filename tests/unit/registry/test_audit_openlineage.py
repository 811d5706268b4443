"""The audit's events for OpenLineage: exact versions, and how runs ended."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import jsonschema
import pytest

from tests.unit.registry.openlineage_schema import EVENT
from tests.unit.registry.test_order_and_owner import judged_on_the_items_of_today
from tests.unit.registry.workspace import RULES, candidate, write_run
from uni_moe.artifacts import Layout, read_card, read_json, write_json
from uni_moe.audit_log import sound_log
from uni_moe.cli import main
from uni_moe.registry.openlineage import Decided, openlineage_lines, run_events
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register
from uni_moe.runs import start_run

FLOW = "7d2c4a52-0000-4000-8000-000000000001"


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


def versions(datasets):
    return {one["name"]: one["facets"]["version"]["datasetVersion"] for one in datasets}


def told(layout, namespace=None):
    """Return the events of a workspace, each held to the published schema."""
    lines = openlineage_lines(layout, sound_log(layout).entries, namespace)
    events = [json.loads(line) for line in lines]
    check = jsonschema.Draft202012Validator(EVENT, format_checker=jsonschema.FormatChecker())
    for event in events:
        check.validate(event)
    return events


def ends(events):
    """Return the last event of each job."""
    return {event["job"]["name"]: event for event in events}


def flow_of(layout):
    with start_run(layout, "retrain", {}, reason="a try", flow_run=FLOW):
        known = register(layout, reason="a try", who="ada", flow_run=FLOW)
        promote_if_better(layout, known, RULES, reason="a try", flow_run=FLOW)
    return known


def test_a_decision_of_the_audit_names_the_versions_it_looked_at(layout):
    candidate(layout, "a", 0.6)
    known = flow_of(layout)
    events = told(layout)
    assert [(e["job"]["name"], e["eventType"]) for e in events] == [
        (stage, kind) for stage in ("retrain", "register", "gate") for kind in ("START", "COMPLETE")
    ]
    for event in events[2:]:
        assert set(versions(event["inputs"]).values()) == {known.model, known.report}
        assert uuid.UUID(event["run"]["runId"]).version == 5
    assert told(layout) == events


def test_an_audited_registration_brings_what_the_gate_reads_into_the_store(layout):
    candidate(layout, "a", 0.6)
    known = flow_of(layout)
    last = ends(told(layout))
    assert versions(last["register"]["inputs"]) == {
        "artifacts/model": known.model,
        "artifacts/report": known.report,
    }
    assert last["register"]["outputs"] == last["gate"]["inputs"]
    assert last["gate"]["outputs"] == []
    judged_on_the_items_of_today(layout, known)
    again = ends(told(layout))["register"]
    store = f"store/{known.model}"
    assert set(versions(again["inputs"])) == {f"{store}/model", f"state/judged/{known.model}"}
    assert [name.startswith(f"{store}/report-") for name in versions(again["outputs"])] == [True]


def test_an_audited_registration_of_before_came_from_artifacts(layout):
    candidate(layout, "a", 0.6)
    known = flow_of(layout)
    new = ends(told(layout))["register"]
    for file in layout.runs.glob("*-register-*/run.json"):
        write_json(file, {k: v for k, v in read_json(file).items() if k != "read"})
    assert ends(told(layout))["register"] == new
    assert versions(new["inputs"])["artifacts/model"] == known.model


def test_children_in_the_audits_export_point_to_an_event_that_is_there(layout):
    candidate(layout, "a", 0.6)
    flow_of(layout)
    events = told(layout)
    (flow,) = {e["run"]["runId"] for e in events if e["job"]["name"] == "retrain"}
    assert flow == FLOW
    for event in events:
        parent = event["run"]["facets"].get("parent")
        if event["job"]["name"] == "retrain":
            assert parent is None
        else:
            assert parent["run"]["runId"] == flow
            assert parent["job"] == {k: events[0]["job"][k] for k in ("namespace", "name")}


def test_two_workspaces_in_one_export_do_not_share_names(layout, tmp_path):
    other = Layout(tmp_path / "other")
    spaces = []
    for one in (layout, other):
        candidate(one, "a", 0.6)
        flow_of(one)
        (space,) = {event["job"]["namespace"] for event in told(one)}
        assert {d["namespace"] for event in told(one) for d in event["inputs"]} == {space}
        assert space.startswith("uni-moe://")
        spaces.append(space)
    assert spaces[0] != spaces[1]
    out = tmp_path / "events.jsonl"
    words = ["--workspace", str(layout.root), "audit", "export", "--openlineage", str(out)]
    assert main([*words, "--namespace", "uni-moe://team"]) == 0
    events = [json.loads(line) for line in out.read_text().splitlines()]
    assert {event["job"]["namespace"] for event in events} == {"uni-moe://team"}


def test_a_stage_in_the_audits_export_reads_its_parents_and_writes_its_artifact(layout):
    candidate(layout, "a", 0.6)
    card = read_card(layout.model)
    record = {"id": "1-tune", "stage": "tune", "status": "done", "started": "t", "ended": "u"}
    record["artifacts"] = {"artifacts/model": card.id}
    known = {card.id: ("artifacts/model", card)}
    start, end = run_events(record, known, Decided(), "uni-moe://here")
    assert versions(start["inputs"]) == versions(end["inputs"]) == dict(card.parents)
    assert (start["outputs"], versions(end["outputs"])) == ([], {"artifacts/model": card.id})
    assert (start["eventTime"], end["eventTime"]) == ("t", "u")


def test_what_a_run_read_beside_its_parents_is_in_the_audits_export(layout):
    with start_run(layout, "ingest", {}) as run:
        run.read("/data/set", "a" * 64, namespace="file")
        run.read("sources/playground", "b" * 64)
    (end,) = (event for event in told(layout, "uni-moe://here") if event["eventType"] == "COMPLETE")
    assert [(one["namespace"], one["name"]) for one in end["inputs"]] == [
        ("file", "/data/set"),
        ("uni-moe://here", "sources/playground"),
    ]
    assert set(versions(end["inputs"]).values()) == {"a" * 64, "b" * 64}


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
    assert [event["eventType"] for event in told(layout)] == kinds


def test_who_died_in_the_audits_export_did_so_when_last_heard_of(layout):
    folder = write_run(layout, "1-tune", silent_s=99)
    begun = datetime.now(UTC) - timedelta(hours=3)
    write_json(folder / "run.json", read_json(folder / "run.json") | {"started": begun.isoformat()})
    start, end = told(layout)
    beat = json.loads((folder / "heartbeat.jsonl").read_text().splitlines()[0])["time"]
    assert (start["eventTime"], end["eventTime"]) == (begun.isoformat(), beat)


def test_an_event_that_lacks_what_the_schema_asks_for_is_told(layout):
    write_run(layout, "1-tune", status="failed")
    check = jsonschema.Draft202012Validator(EVENT, format_checker=jsonschema.FormatChecker())
    good = told(layout)[0]
    assert check.is_valid(good)
    for wrong in (
        {"eventTime": "yesterday"},
        {"eventType": "START", "producer": "no uri"},
        {"run": {"runId": "17"}},
        {"run": good["run"] | {"facets": {"parent": {"run": {"runId": FLOW}}}}},
        {"inputs": [{"name": "x"}]},
        {"eventType": "DIED"},
    ):
        assert not check.is_valid(good | wrong)
