"""Tiny workspaces: every artifact of the road, a few bytes each."""

import json
import shutil
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import inspect, text

from uni_moe.artifacts import Layout, parent_ids, write_artifact, write_json
from uni_moe.config import Gate
from uni_moe.records import EvalReport, Score
from uni_moe.registry.engines import reader
from uni_moe.registry.holdings import block_of, holder_of, unpack

RULES = Gate(margin=0.03, min_over_chance=0.25, confidence=0.95, power=0.8, approvals=0)


def make(layout, target, stage, kind, parents=(), *, content="", results=None, params=None):
    with write_artifact(
        target, stage=stage, kind=kind, params=params or {}, parents=parent_ids(layout, *parents)
    ) as draft:
        (draft.folder / "content.bin").write_text(content)
        draft.results.update(results or {})
    return target


def train(layout, weights, *, raw="raw", params=None):
    """Make samples, corpus, two experts and a model, as the road does."""
    made = {"sources": {"playground": 7}, "licenses": {"CC0-1.0": 7}, "listed": 7}
    samples = make(layout, layout.samples("image"), "ingest", "samples", content=raw, results=made)
    corpus = make(layout, layout.corpus("image"), "prepare@image", "corpus", [samples])
    experts = [
        make(layout, layout.expert(name), f"experts@{name}", "expert", [corpus])
        for name in ("image", "video")
    ]
    parents = [corpus, *experts]
    return make(layout, layout.model, "tune", "model", parents, content=weights, params=params)


def judge(layout, share, *, items="same", about=None, read=(), params=None):
    score = Score(100, share, share - 0.1, share + 0.1, 0.0, 0.25, 0.25, 0.3)
    parents = parent_ids(layout, layout.model, layout.corpus("image"), *read)
    model = about or parents["artifacts/model"]
    report = report_of(model, score, "playground/shape", items={"image": items})
    with write_artifact(
        layout.report, stage="evaluate", kind="report", params=params or {}, parents=parents
    ) as draft:
        write_json(draft.folder / "report.json", asdict(report))
        (draft.folder / "answers.jsonl").write_text("".join(answers(share)))
        draft.results["mean"] = share


def report_of(model, score, task, **told):
    """Return the report of a model on one modality and its only task; `told` takes other fields."""
    fields = {
        "model": model,
        "items": {"image": "same"},
        "modalities": {"image": score},
        "tasks": {task: replace(score, swapped=None)},
        "mean": score.score,
        "bias": 0.0,
        "losses": {},
        "slots": ("base", "image"),
        "load": {},
        "knock_out": {},
    }
    return EvalReport(**(fields | told))


def answers(share):
    """Return the lines of a hundred answers, the first of them right."""
    for n in range(100):
        row = {
            "id": f"{n:03}",
            "key": f"a/{n}",
            "modality": "image",
            "score": float(n < 100 * share),
        }
        yield json.dumps(row) + "\n"


def candidate(layout, weights, share, **options):
    train(layout, weights)
    judge(layout, share, **options)


def write_run(layout: Layout, run_id, *, status="running", silent_s=0.0, metrics=""):
    """Write a run folder by hand, as a process that is at work or was killed leaves it."""
    folder = layout.runs / run_id
    folder.mkdir(parents=True)
    last = (datetime.now(UTC) - timedelta(seconds=silent_s)).isoformat()
    record = {"id": run_id, "stage": "tune", "status": status, "started": last, "artifacts": {}}
    write_json(folder / "run.json", record)
    (folder / "heartbeat.jsonl").write_text(json.dumps({"time": last}) + '\n{"ti')
    (folder / "metrics.jsonl").write_text(metrics)
    return folder


def tables(layout):
    """Return every row of every table, by the database's own words; series by run and key.

    Numbers that only connect rows follow from the order of import: what they connect is told.
    """
    engine = reader(layout)
    with engine.connect() as connection:
        found = {}
        for name in set(inspect(connection).get_table_names()) - {"alembic_version"}:
            said = "select * from " + name
            if name in ("points", "not_finite"):
                said = f"select s.run, s.key, x.* from {name} x join series s on s.id = x.series"
            rows = connection.execute(text(said)).mappings()
            found[name] = sorted(repr(without_numbers(name, row)) for row in rows)
        found |= _samples(connection) if "holdings" in found else {}
    engine.dispose()
    return found


def without_numbers(name, row):
    """Leave out the number of a series: it says only when the series was first met."""
    return {key: row[key] for key in row if (name, key) != ("series", "id") and key != "series"}


def _samples(connection):
    """Return samples, and who holds which, without the numbers that stand for them."""
    rows = connection.execute(text("select * from samples")).mappings().all()
    marks = {row["number"]: row["mark"] for row in rows}
    held = connection.execute(text("select place, data from holdings")).all()
    own = {}
    for place, data in held:
        numbers, columns = unpack(block_of(place), data)
        told = zip(numbers.tolist(), *(column.tolist() for column in columns), strict=True)
        own.setdefault(holder_of(place), []).extend((marks[n], *draws) for n, *draws in told)
    holders = connection.execute(text("select * from holders")).mappings().all()
    return {
        "samples": sorted(repr({**row, "number": None}) for row in rows),
        "holders": sorted(
            (row["artifact"], row["what"], row["samples"], row["draws"]) for row in holders
        ),
        "holdings": sorted(
            (row["artifact"], row["what"], sorted(own.get(row["number"], []))) for row in holders
        ),
    }


def forget(layout):
    shutil.rmtree(layout.artifacts)
