"""Workspaces with judged versions: reports, answers, a corpus with a picture, routing."""

import io
import json

from PIL import Image

from tests.unit.registry.workspace import RULES, report_of, train
from uni_moe.artifacts import Layout, parent_ids, write_artifact, write_json
from uni_moe.data.shards import ShardWriter
from uni_moe.records import MediaRef, Sample, Score, Slot, Turn, canonical_json
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register

HOSTILE = "<script>alert(1)</script> ![x](http://elsewhere/x.png) \u202egnihton\u202c \N{OWL}"
LOAD = {
    "image": {"0": [0.5, 0.3, 0.2], "2": [0.6, 0.4, 0.0]},
    "audio": {"0": [0.4, 0.3, 0.3], "2": [0.5, 0.5, 0.0005]},
}
SLOTS = ("base", "image", "video")


TOLD = {  # params that say when routing is an alarm
    "telemetry": {
        "router": {
            "patience_steps": 20,
            "collapse_share": 0.98,
            "least_entropy": 0.02,
            "dead_share": 0.01,
        }
    }
}


def version(
    root, weights, right, *, load=LOAD, said="blue", swapped=0.3, knock_out=None, params=TOLD
):
    """Train, judge and register a model: `right` of ten items of pictures are right."""
    layout = Layout(root)
    train(layout, weights, params=params)
    share = right / 10
    score = Score(10, share, max(0.0, share - 0.2), min(1.0, share + 0.2), 0.2, 0.2, 0.25, swapped)
    parents = parent_ids(layout, layout.model, layout.corpus("image"))
    told = {"slots": SLOTS, "load": load, "knock_out": knock_out or {}}
    report = report_of(parents["artifacts/model"], score, "mine/image", **told)
    with write_artifact(
        layout.report, stage="evaluate", kind="report", params={}, parents=parents
    ) as draft:
        text = json.dumps(report.to_json())  # NaN may be in it: a broken model's numbers
        (draft.folder / "report.json").write_text(text)
        lines = (json.dumps(answer(n, n < right, said)) for n in range(10))
        (draft.folder / "answers.jsonl").write_text("\n".join(lines) + "\n")
    known = register(layout, reason=f"a test {HOSTILE}", who="ada", flow_run="1")
    promote_if_better(layout, known, RULES, reason="a test", flow_run="1")
    corpus(layout)
    return layout, known


def answer(n, is_right, said):
    return {
        "key": f"mine/{n:02}",
        "id": f"{n:064}",
        "task": "mine/image",
        "group": "colour",
        "modality": "image",
        "prompt": f"What is it? {HOSTILE}",
        "reference": "red",
        "answer": "red" if is_right else said,
        "metric": "exact_match",
        "correct": is_right,
        "score": float(is_right),
        "unparseable": False,
        "swapped_answer": HOSTILE,
        "swapped_score": 0.0,
        "question_only": "blue",
    }


def corpus(layout):
    """Put a picture and its samples into the corpus, beside what was made there."""
    folder = layout.corpus("image")
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, format="PNG")
    writer = ShardWriter(folder)
    shard, members = writer.add("mine/00", [file.getvalue()], ["0" * 64], ["a.png"])
    writer.close()
    ref = MediaRef("image", "0" * 64, members, 100, shard)
    lines = [canonical_json(sample(n, ref).to_json()) for n in range(9)]  # the tenth is gone
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def sample(n, ref):
    turns = (
        Turn("user", (Slot("image"), "What is it?")),
        Turn("assistant", ("red",)),
    )
    return Sample(
        f"mine/{n:02}",
        f"{n:064}",
        "mine",
        "test",
        "image",
        "mine/image",
        turns,
        (ref,),
        caption=HOSTILE,
    )


def routing(layout, run, lines, *, status="done", params=TOLD):
    """Write a run's folder by hand, with its routing."""
    folder = layout.runs / run
    folder.mkdir(parents=True)
    started = "2026-01-01T00:00:00+00:00"
    record = {"id": run, "stage": "tune", "status": status, "started": started}
    record |= {"artifacts": {}, "params": params}
    write_json(folder / "run.json", record)
    if lines is not None:
        (folder / "routing.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return folder


def step(number, visits=(6, 4, 0), entropy=0.9):
    told = {"tokens": 5, "visits": list(visits), "share": [], "entropy": entropy}
    return {"step": number, "layers": {"0": {"image": told, "audio": told}}}
