"""Runs and decisions as OpenLineage events, each dataset with its exact version: its card's id.

Source: the OpenLineage specification 2-0-2, and its facets for versions, parents and errors. Events
are made from cards, run folders and the audit log; only that a run died without a word is told by
the clock.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from uni_moe.artifacts import Layout
from uni_moe.audit import Entry
from uni_moe.records import Card
from uni_moe.registry.cards import all_cards, all_runs

_PRODUCER = "urn:uni-moe-platform"
_SPEC = "https://openlineage.io/spec"
_ENDS = {"done": "COMPLETE", "failed": "FAIL", "died": "ABORT"}


def openlineage_lines(layout: Layout, entries: Sequence[Entry]) -> list[str]:
    """Return a START for every run and how it ended, as JSON, oldest run first."""
    cards = all_cards(layout)
    decided = _decided(entries)
    events: list[dict[str, Any]] = []
    for folder, record in all_runs(layout):
        events += run_events(record, cards, decided.get(folder.name, {}))
    return [json.dumps(event, sort_keys=True, ensure_ascii=False) for event in events]


def run_events(
    record: Mapping[str, Any],
    cards: Mapping[str, tuple[str, Card]],
    looked_at: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Return the events of one run. Pure.

    Args:
        record: what `run.json` holds.
        cards: id -> (name in the workspace, card) of every artifact that is known.
        looked_at: the artifacts that a decision was about, by path, with their ids.
    """
    made = dict(record["artifacts"])
    parents = {
        (name, version)
        for card_id in made.values()
        if card_id in cards
        for name, version in cards[card_id][1].parents.items()
    }
    event = {
        "producer": _PRODUCER,
        "schemaURL": f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "job": {"namespace": "uni-moe", "name": record["stage"], "facets": {}},
        "inputs": _datasets({*parents, *looked_at.items()}),
        "outputs": _datasets(made.items()),
    }
    begun = {
        **event,
        "eventType": "START",
        "eventTime": record["started"],
        "run": _run(record, error=None),
        "outputs": [],
    }
    if record["status"] not in _ENDS:
        return [begun]
    end = {
        **event,
        "eventType": _ENDS[record["status"]],
        "eventTime": record.get("ended") or record["started"],
        "run": _run(record, error=record.get("error")),
    }
    return [begun, end]


def _decided(entries: Iterable[Entry]) -> dict[str, Mapping[str, str]]:
    """Return the artifacts that each run decided about, by the run's name."""
    return {
        path.split("/")[1]: entry.evidence.get("artifacts", {})
        for entry in entries
        if "decision" in entry.evidence
        for path in entry.evidence["files"]
    }


def _run(record: Mapping[str, Any], *, error: str | None) -> dict[str, Any]:
    facets: dict[str, Any] = {}
    if record.get("flow_run"):
        facets["parent"] = {
            **_facet("1-2-0", "ParentRunFacet"),
            "run": {"runId": record["flow_run"]},
            "job": {"namespace": "uni-moe", "name": "retrain"},
        }
    if error is not None:
        facets["errorMessage"] = {
            **_facet("1-0-1", "ErrorMessageRunFacet"),
            "message": error,
            "programmingLanguage": "PYTHON",
        }
    return {"runId": str(uuid.uuid5(uuid.NAMESPACE_URL, record["id"])), "facets": facets}


def _datasets(versions: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {
            "namespace": "uni-moe",
            "name": name,
            "facets": {
                "version": {
                    **_facet("1-0-1", "DatasetVersionDatasetFacet"),
                    "datasetVersion": version,
                }
            },
        }
        for name, version in sorted(versions)
    ]


def _facet(version: str, name: str) -> dict[str, str]:
    schema = f"{_SPEC}/facets/{version}/{name}.json#/$defs/{name}"
    return {"_producer": _PRODUCER, "_schemaURL": schema}
