"""A workspace whose every text is hostile: what a stranger's data could say to a browser."""

import json

from tests.unit.registry import data_workspace as made
from tests.unit.registry.workspace import report_of
from uni_moe.artifacts import parent_ids, read_json, write_artifact, write_json
from uni_moe.records import ContractReport, RuleVerdict, Score
from uni_moe.registry.indexing import index
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register
from uni_moe.runs import start_run

ELSEWHERE = "http://evil.invalid"
SCRIPT = (
    "<script>window.__hacked=1</script><img src=x onerror='window.__hacked=1'>"
    f"<iframe src='{ELSEWHERE}/frame'></iframe><svg onload='window.__hacked=1'>"
)
MARKDOWN = (
    f"![p]({ELSEWHERE}/pixel.png) [log in]({ELSEWHERE}/login) [x](javascript:window.__hacked=1) "
    f"# big **bold** `code` $x^2$ :red[red] :material/home: <{ELSEWHERE}/auto> | a | b |"
)
TURNED = "\u202egnp.exe\u202c \u2066abc\u2069 \u200b\u0000\u001b[31m \ud83d\ude00 مرحبا 你好 🧨🏴‍☠️"
TURNED = TURNED.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\x00", "")
PASSWD = "../" * 20 + "etc/passwd"  # from wherever a page would look, it is there
FORMULA = "=cmd|' /C calc'!A0"
LONG = "x" * 1_000_000
TEXTS = (SCRIPT, MARKDOWN, TURNED, FORMULA, PASSWD, "'; drop table runs; --")
ALL = " ".join(TEXTS)
CURVES = "".join(
    json.dumps({"step": step, "loss": value, "loss/image": value, f"loss/{SCRIPT}": 1.0}) + "\n"
    for step, value in enumerate((1.0, float("nan"), float("inf"), -float("inf"), 1e308, 0.5), 1)
)
TOLD = {"tokens": 800, "visits": [1] * 800, "share": [], "entropy": 0.5}
KINDS = {MARKDOWN: TOLD, SCRIPT: TOLD, "image": TOLD}  # so many that one is shown at a time
ROUTING = "".join(
    json.dumps({"step": step, "layers": {MARKDOWN: KINDS, SCRIPT: {"image": TOLD}}}) + "\n"
    for step in (1, 2, 3)
)


def hostile(layout):
    """Make it, with an index; some of its files are gone."""
    first = rows()
    made.ingest(layout, "image", first, refused=[made.row(f"{SCRIPT}/9", **told("image"))])
    made.ingest(layout, "audio", [made.row("mine/8", **told("audio"))], refused=[])
    contract(layout)
    made.train(layout, seen=[one["key"] for one in first], params={ALL: ALL})
    judge(layout, [one["key"] for one in first])
    known = register(layout, reason=ALL, who=MARKDOWN, flow_run=SCRIPT)
    promote_if_better(layout, known, made.RULES, reason=ALL, flow_run=SCRIPT)
    for reason in (*TEXTS, LONG):
        run(layout, reason)
    index(layout)
    assert (layout.samples("image") / PASSWD).is_file(), "what leads nowhere proves nothing"
    for file in (*layout.store.glob("*/report-*/report.json"), layout.artifacts / "model"):
        if file.is_file():
            file.unlink()
    return layout.root


def told(modality):
    turns = [{"role": "user", "text": f"{ALL} {LONG}"}, {"role": "assistant", "text": ALL}]
    media = [{"kind": modality, "members": [PASSWD], "sha256": "0" * 64}]
    return {
        "modality": modality,
        "source": SCRIPT,
        "license": MARKDOWN,
        "subject": TURNED,
        "conversation": json.dumps(turns),
        "media": json.dumps(media),
    }


def rows():
    names = ("1", "2", MARKDOWN, TURNED, PASSWD)
    keys = [f"{SCRIPT}/{name}" for name in names]
    return [made.row(key, **told("image")) for key in keys]


def contract(layout):
    verdict = RuleVerdict(f"rule {SCRIPT}", "sample", MARKDOWN, ALL, MARKDOWN, 4, 1, ())
    report = ContractReport("manifest", 1, f"{1:064}", bool(0), (), (verdict,), {}, ())
    with write_artifact(
        layout.contract_report,
        stage="validate",
        kind="contract_report",
        params={"contract_sha256": f"{1:064}"},
        parents=parent_ids(layout, layout.samples("image")),
    ) as draft:
        write_json(draft.folder / "report.json", report.to_json())


def judge(layout, keys):
    score = Score(100, 0.7, 0.6, 0.8, 0.0, 0.25, 0.25, 0.3)
    parents = parent_ids(layout, layout.model, layout.corpus("image"))
    load = {kind: {MARKDOWN: [0.5, 0.5], SCRIPT: [1.0, 0.0]} for kind in (MARKDOWN, "image")}
    told = {"slots": (SCRIPT, MARKDOWN), "load": load}
    report = report_of(parents["artifacts/model"], score, f"mine/{SCRIPT}", **told)
    said = dict.fromkeys(("answer", "prompt", "question_only", "reference", "swapped_answer"), ALL)
    with write_artifact(
        layout.report, stage="evaluate", kind="report", params={}, parents=parents
    ) as draft:
        write_json(draft.folder / "report.json", report.to_json())
        lines = [
            {"id": f"{n:03}", "key": key, "modality": "image", "score": float(n < 70)}
            | {"task": f"mine/{SCRIPT}", "correct": n < 70, "group": MARKDOWN, **said}
            for n, key in enumerate([*keys, *(f"other/{n}" for n in range(100 - len(keys)))])
        ]
        (draft.folder / "answers.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))


def run(layout, reason):
    """Leave a run that failed, in hostile words."""
    with start_run(layout, "tune", {}, reason=reason) as one:
        one.event("alarm", message=ALL, what=MARKDOWN)
        one.event(SCRIPT, text=reason)
    with (one.folder / "events.jsonl").open("a") as events:
        events.write('{"time": "never", "event": "alarm", "value": NaN}\n{"event": 7}\n{"ti')
    (one.folder / "metrics.jsonl").write_text(CURVES)
    (one.folder / "routing.jsonl").write_text(ROUTING + '{"step": 4, "layers": {"0": {"load": [NaN')
    record = read_json(one.folder / "run.json")
    record |= {"user": SCRIPT, "host": MARKDOWN, "error": f"{ALL} {reason}", "status": "failed"}
    record |= {"commit": SCRIPT, "params": {ALL: ALL}}
    record["environment"] = {SCRIPT: MARKDOWN, "packages": {SCRIPT: ALL}}
    write_json(one.folder / "run.json", record)
