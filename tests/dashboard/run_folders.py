"""Run folders as a stage leaves them, without running one."""

import json
import socket
from datetime import UTC, datetime, timedelta

from uni_moe.artifacts import Layout, write_json

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
NOBODY = 2**22 + 1  # no process has this number


def layout_of(root):
    layout = Layout(root)
    layout.runs.mkdir(parents=True, exist_ok=True)
    return layout


def write_run(layout, stage, status="done", *, began=BEGAN, steps=0, **told):
    """Write a run; `told` goes into its record. Return its id."""
    run = f"{began:%Y%m%dT%H%M%S}-{stage.replace('@', '-')}-{len(list(layout.runs.iterdir())):06x}"
    folder = layout.runs / run
    folder.mkdir()
    record = {
        "id": run,
        "stage": stage,
        "status": status,
        "started": began.isoformat(),
        "user": "ada",
        "host": socket.gethostname(),
        "reason": "a test",
        "commit": "c" * 40,
        "environment": {"python": "3.11", "packages": {"torch": "2.13"}},
        "params": {"seed": 7},
        "artifacts": {},
        **told,
    }
    if status in ("done", "failed"):
        record |= {"ended": (began + timedelta(seconds=90)).isoformat(), "duration_s": 90.0}
    write_json(folder / "run.json", record)
    append(folder / "heartbeat.jsonl", {"time": began.isoformat()})
    for step in range(1, steps + 1):
        metric(layout, run, step, began=began, loss=2.0 / step)
    return run


def now_running(layout, stage="tune", **told):
    """Write a run that beats, as long as a slow test lasts."""
    run = write_run(layout, stage, "running", began=datetime.now(UTC), **told)
    later = datetime.now(UTC) + timedelta(hours=1)
    append(layout.runs / run / "heartbeat.jsonl", {"time": later.isoformat()})
    return run


def metric(layout, run, step, *, began=BEGAN, **numbers):
    moment = (began + timedelta(seconds=step)).isoformat()
    append(layout.runs / run / "metrics.jsonl", {"time": moment, "step": step, **numbers})


def happened(layout, run, event, **facts):
    append(layout.runs / run / "events.jsonl", {"time": BEGAN.isoformat(), "event": event, **facts})


def append(file, row):
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")
