"""Tiny workspaces with tables: manifests, ledgers and answers that name samples by hand."""

import json

from tests.unit.registry.workspace import RULES as RULES
from tests.unit.registry.workspace import report_of
from uni_moe.artifacts import parent_ids, write_artifact, write_json
from uni_moe.data.exposures import FILE as LEDGER
from uni_moe.data.exposures import LedgerEntry, write_entries
from uni_moe.data.manifest import COLUMNS
from uni_moe.data.validated import write_accepted, write_quarantine
from uni_moe.records import ContractReport, RuleVerdict, Score, sha256_text
from uni_moe.registry.indexing import index
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register

KINDS = ("image", "audio")


def row(key, *, content=None, **told):
    """Return a manifest's row of a sample; its id follows from its content."""
    nothing = dict.fromkeys(COLUMNS)
    about = {
        "key": key,
        "id": sha256_text(content or key),
        "source": key.partition("/")[0],
        "license": "CC0-1.0",
        "split": "train",
        "media": "[]",
        "conversation": "[]",
    }
    return nothing | about | told


def entries(seen, modality):
    """Return a ledger: one draw a step, in the order in which the keys are given."""
    return [
        LedgerEntry(step, 0, 0, sha256_text(key), key, modality, key.partition("/")[0], 5, 0)
        for step, key in enumerate(seen, 1)
    ]


def ingest(layout, modality, rows, *, refused=(), version=1, params=None):
    """Make samples, the contract's verdict and the corpus of a modality."""
    rules = {"contract": "manifest", "version": version, "contract_sha256": f"{version:064}"}
    with write_artifact(
        layout.samples(modality),
        stage="ingest",
        kind="samples",
        params=params or {"sources": [{"kind": "conversations", "name": "mine"}]},
        parents={},
    ) as draft:
        listed = [*rows, *refused]
        (draft.folder / "raw").write_text(json.dumps(listed))
        names = [one["source"] for one in listed]
        draft.results.update(sources={name: names.count(name) for name in names})
    with write_artifact(
        layout.validated(modality),
        stage="validate",
        kind="validated",
        params=rules,
        parents=parent_ids(layout, layout.samples(modality)),
    ) as draft:
        write_accepted(draft.folder, rows)
        write_quarantine(draft.folder, refused, [["short_sound"]] * len(refused))
    parents = parent_ids(layout, layout.samples(modality), layout.validated(modality))
    stage = f"prepare@{modality}"
    with write_artifact(
        layout.corpus(modality), stage=stage, kind="corpus", params={}, parents=parents
    ) as draft:
        (draft.folder / "train.jsonl").write_text(json.dumps([one["key"] for one in rows]))


def judge_data(layout, *, version=1, rule="duration_s: be between (0.1, 600)"):
    """Write the contract's report over what was ingested."""
    verdict = RuleVerdict("short_sound", "sample", rule, "why", "remedy", 4, 1, ())
    report = ContractReport(
        "manifest", version, f"{version:064}", bool(rule), (), (verdict,), {}, ()
    )
    there = [layout.samples(one) for one in KINDS if layout.samples(one).is_dir()]
    with write_artifact(
        layout.contract_report,
        stage="validate",
        kind="contract_report",
        params={"contract_sha256": f"{version:064}"},
        parents=parent_ids(layout, *there),
    ) as draft:
        write_json(draft.folder / "report.json", report.to_json())


def phase(layout, folder, stage, kind, parents, seen=None, *, modality="image", params=None):
    """Make an artifact; with `seen` it keeps a ledger."""
    with write_artifact(
        folder, stage=stage, kind=kind, params=params or {}, parents=parent_ids(layout, *parents)
    ) as draft:
        (draft.folder / "content.bin").write_text(stage)
        if seen is not None:
            write_entries(draft.folder / LEDGER, entries(seen, modality))
    return folder


def train(layout, *, seen=("mine/1", "mine/1#caption", "mine/2"), heard=("mine/8",), params=None):
    """Make a foundation without a ledger, two experts, a tuned model and its report."""
    image, audio = (layout.corpus(one) for one in KINDS)
    eye = phase(layout, layout.foundation("image"), "foundation@image", "foundation", [image])
    made = [
        phase(layout, layout.expert("image"), "experts@image", "expert", [image], seen),
        phase(
            layout,
            layout.expert("audio"),
            "experts@audio",
            "expert",
            [audio],
            heard,
            modality="audio",
        ),
    ]
    assembled = phase(layout, layout.assembled, "assemble", "model", [eye, *made])
    parents = [image, audio, assembled]
    phase(layout, layout.model, "tune", "model", parents, (), params=params)
    return layout.model


def tune_on(layout, start, *, seen=()):
    """Tune a registered model further, on the corpora of today, and judge what comes of it."""
    parents = [*(layout.corpus(one) for one in KINDS), layout.store / start / "model"]
    phase(layout, layout.model, "tune", "model", parents, seen)
    judge(layout, 0.9)


def judge(layout, share, *, judged=("mine/3",)):
    """Write the candidate's report: one modality, and the keys of its items."""
    score = Score(100, share, share - 0.1, share + 0.1, 0.0, 0.25, 0.25, 0.3)
    parents = parent_ids(layout, layout.model, layout.corpus("image"))
    report = report_of(parents["artifacts/model"], score, "mine/answer")
    keys = [*judged, *(f"other/{n}" for n in range(100 - len(judged)))]
    with write_artifact(
        layout.report, stage="evaluate", kind="report", params={}, parents=parents
    ) as draft:
        write_json(draft.folder / "report.json", report.to_json())
        lines = [
            {"id": f"{n:03}", "key": key, "modality": "image", "score": float(n < 100 * share)}
            for n, key in enumerate(keys)
        ]
        (draft.folder / "answers.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))


def pictures(**second):
    return [
        row("mine/1", modality="image", subject="ann"),
        row("mine/2", modality="image", **second),
        row("mine/3", modality="image", split="test"),
        row("mine/4", modality="image", license="CC-BY-4.0"),
    ]


def sounds():
    return [row("mine/8", modality="audio", subject="ann"), row("mine/9", modality="audio")]


def road(layout, share=0.6, **options):
    """Make the whole road, with one sound refused."""
    ingest(layout, "image", pictures())
    ingest(layout, "audio", sounds(), refused=[row("mine/7", modality="audio")])
    judge_data(layout)
    train(layout, **options)
    judge(layout, share)


def registered(layout, share=0.6, **options):
    road(layout, share, **options)
    known = register(layout, reason="a test", who="ada", flow_run="1")
    promote_if_better(layout, known, RULES, reason="a test", flow_run="1")
    return known


def lose_manifests(layout):
    """Make other data, and lose what was kept of those of registered models; the index follows."""
    ingest(layout, "image", [row("mine/1", modality="image", license="other")])
    train(layout, seen=["mine/1"])
    for folder in (layout.store / "seen").glob("*.sha256"):
        folder.unlink()
    layout.registry.unlink()
    index(layout)
