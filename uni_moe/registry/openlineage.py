"""Runs and decisions as OpenLineage events, each dataset with its exact version: its card's id.

Source: the OpenLineage specification 2-0-2, and its facets for versions, parents and errors. Events
are made from cards, run folders and the audit log; only that a run died without a word is told by
the clock.

Names are relative to a workspace, so its namespace tells it from all others; raw files have the
namespace `file` and their path. Not covered: parameters and code, which cards hold.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uni_moe.artifacts import Layout
from uni_moe.audit import Entry
from uni_moe.records import Card
from uni_moe.registry.cards import all_runs, last_heard
from uni_moe.registry.database import identity
from uni_moe.registry.made import known_cards

SCHEME = "uni-moe"
Dataset = tuple[str, str, str]  # namespace, name, version
_REGISTER, _FLOW = "register", "retrain"
_PRODUCER = "urn:uni-moe-platform"
_SPEC = "https://openlineage.io/spec"
_ENDS = {"done": "COMPLETE", "failed": "FAIL", "died": "ABORT"}


def openlineage_lines(
    layout: Layout, entries: Sequence[Entry], namespace: str | None = None
) -> list[str]:
    """Return a START for every run and how it ended, as JSON, oldest run first.

    Args:
        layout: the workspace.
        entries: its audit log.
        namespace: of jobs and datasets; None takes one that only this workspace has.
    """
    space = namespace or f"{SCHEME}://{identity(layout)}"
    cards = known_cards(layout)
    decided = _decided(entries)
    events: list[dict[str, Any]] = []
    for folder, record in all_runs(layout):
        if record["status"] == "died":
            record["ended"] = last_heard(folder, record)
        events += run_events(record, cards, decided.get(folder.name, Decided()), space)
    return [json.dumps(event, sort_keys=True, ensure_ascii=False) for event in events]


@dataclass(frozen=True)
class Decided:
    """What a run decided: the event of the log, and the artifacts it was about by path."""

    event: str | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)


def run_events(
    record: Mapping[str, Any],
    cards: Mapping[str, tuple[str, Card]],
    decided: Decided,
    namespace: str,
) -> list[dict[str, Any]]:
    """Return the events of one run. Pure.

    Args:
        record: what `run.json` holds.
        cards: id -> (name in the workspace, card) of every artifact that is known.
        decided: what the log tells of the run.
        namespace: of the job and of the workspace's datasets.
    """
    made = {(namespace, *one) for one in record["artifacts"].items()}
    parents = {
        (namespace, *parent)
        for card_id in record["artifacts"].values()
        if card_id in cards
        for parent in cards[card_id][1].parents.items()
    }
    read, kept = _decision(record, decided, namespace)
    event = {
        "producer": _PRODUCER,
        "schemaURL": f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "job": {"namespace": namespace, "name": record["stage"], "facets": {}},
        "inputs": _datasets(parents | read),
        "outputs": _datasets(made | kept),
    }
    begun = {
        **event,
        "eventType": "START",
        "eventTime": record["started"],
        "run": _run(record, namespace, error=None),
        "outputs": [],
    }
    if record["status"] not in _ENDS:
        return [begun]
    end = {
        **event,
        "eventType": _ENDS[record["status"]],
        "eventTime": record.get("ended") or record["started"],
        "run": _run(record, namespace, error=record.get("error")),
    }
    return [begun, end]


def _decision(
    record: Mapping[str, Any], decided: Decided, namespace: str
) -> tuple[set[Dataset], set[Dataset]]:
    """Return what a run read beside its artifacts' parents, and what it put into the store.

    A registration moves artifacts into the store. Records of before do not say which: they were
    the candidate and its report.
    """
    read = {
        (one.get("namespace", namespace), one["name"], one["version"])
        for one in record.get("read", ())
    }
    about = {(namespace, *one) for one in decided.artifacts.items()}
    if record["stage"] != _REGISTER:
        return read | about, set()
    if not read and decided.event == "registration":
        read = {(namespace, _candidate(name), version) for _, name, version in about}
    return read or about, about - read


def _candidate(name: str) -> str:
    return "artifacts/model" if name.endswith("/model") else "artifacts/report"


def _decided(entries: Iterable[Entry]) -> dict[str, Decided]:
    """Return what each run decided, by the run's name."""
    return {
        path.split("/")[1]: Decided(entry.event, entry.evidence.get("artifacts", {}))
        for entry in entries
        if "decision" in entry.evidence
        for path in entry.evidence["files"]
    }


def _run(record: Mapping[str, Any], namespace: str, *, error: str | None) -> dict[str, Any]:
    """Return a run; the flow's own record is the run that its stages name as their parent."""
    facets: dict[str, Any] = {}
    flow, is_flow = _flow_of(record), record["stage"] == _FLOW
    if flow and not is_flow:
        facets["parent"] = {
            **_facet("1-2-0", "ParentRunFacet"),
            "run": {"runId": flow},
            "job": {"namespace": namespace, "name": _FLOW},
        }
    if error is not None:
        facets["errorMessage"] = {
            **_facet("1-0-1", "ErrorMessageRunFacet"),
            "message": error,
            "programmingLanguage": "PYTHON",
        }
    own = str(uuid.uuid5(uuid.NAMESPACE_URL, record["id"]))
    return {"runId": flow if flow and is_flow else own, "facets": facets}


def _flow_of(record: Mapping[str, Any]) -> str | None:
    """Return the id of the flow run that a run was part of, None outside of one."""
    try:
        return str(uuid.UUID(record.get("flow_run")))
    except (TypeError, ValueError):
        return None


def _datasets(versions: Iterable[Dataset]) -> list[dict[str, Any]]:
    return [
        {
            "namespace": namespace,
            "name": name,
            "facets": {
                "version": {
                    **_facet("1-0-1", "DatasetVersionDatasetFacet"),
                    "datasetVersion": version,
                }
            },
        }
        for namespace, name, version in sorted(versions)
    ]


def _facet(version: str, name: str) -> dict[str, str]:
    schema = f"{_SPEC}/facets/{version}/{name}.json#/$defs/{name}"
    return {"_producer": _PRODUCER, "_schemaURL": schema}
