"""The stage `evaluate`: the tuned model against the test split, with everything a judge needs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

from uni_moe.artifacts import parent_ids, read_card, read_json, write_json, write_text
from uni_moe.config import Evaluate
from uni_moe.data.corpus import Corpus, open_corpus
from uni_moe.errors import StageError
from uni_moe.evaluate.answering import all_right, answerer, expert_load
from uni_moe.evaluate.judge import Judged, by_task, chosen, items_hash, judge, sum_up
from uni_moe.evaluate.metrics import VERSION
from uni_moe.evaluate.page import page
from uni_moe.evaluate.pictures import draw
from uni_moe.examples import ExampleMaker
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.platform import device, settle
from uni_moe.records import MODALITIES, EvalReport, Sample
from uni_moe.stage import StageContext

KnockOut = Mapping[str, list[float]]


def evaluate(ctx: StageContext) -> None:
    """Judge the candidate and write its report.

    Raises:
        StageError: no modality has a test item.
    """
    plan, seed = ctx.params.evaluate, ctx.params.seed
    ctx.run.event("platform", **settle(ctx.params.platform))
    parents = (ctx.layout.model, *(ctx.layout.corpus(m) for m in MODALITIES))
    ids = parent_ids(ctx.layout, *parents)
    corpora = {modality: open_corpus(ctx.layout.corpus(modality)) for modality in MODALITIES}
    items = {
        modality: chosen(corpus.samples("test"), plan.max_items, seed)
        for modality, corpus in corpora.items()
    }
    items = {modality: rows for modality, rows in items.items() if rows}
    if not items:
        raise StageError(
            "There is nothing to judge the model on.",
            cause="no corpus has a test split.",
            remedy="give some samples the split `test`, or raise `split.test_share` in params.",
        )
    maker = _load(ctx.layout.model, corpora)
    judged = {
        modality: judge(
            rows,
            corpora[modality].samples("train"),
            answerer(maker, batch_size=plan.batch_size, max_new_tokens=plan.max_new_tokens),
            seed=seed,
        )
        for modality, rows in items.items()
    }
    report = _report(ctx, ids[ctx.layout.name_of(ctx.layout.model)], judged, maker)
    _write(ctx, report, judged, parents)
    for corpus in corpora.values():
        corpus.close()


def _load(folder: Path, corpora: Mapping[str, Corpus]) -> ExampleMaker:
    model = UniMoeForConditionalGeneration.from_pretrained(folder, local_files_only=True)
    processor = UniMoeProcessor.from_pretrained(folder)
    return ExampleMaker(corpora, processor, model.eval().to(device()))


def _report(
    ctx: StageContext, model: str, judged: Mapping[str, Sequence[Judged]], maker: ExampleMaker
) -> EvalReport:
    plan = ctx.params.evaluate
    items = {modality: [one.item for one in rows] for modality, rows in judged.items()}
    scores = {modality: sum_up(rows, plan.confidence) for modality, rows in judged.items()}
    every = [one for rows in judged.values() for one in rows]
    shares = [score.score for score in scores.values()]
    return EvalReport(
        model=model,
        items={modality: items_hash(rows) for modality, rows in items.items()},
        modalities=scores,
        tasks={name: sum_up(rows, plan.confidence) for name, rows in by_task(every).items()},
        mean=fmean(shares),
        bias=max(shares) - min(shares),
        losses=_losses(ctx),
        slots=read_json(ctx.layout.model / "receipt.json")["slots"],
        load={
            modality: expert_load(maker, rows, batch_size=plan.batch_size)
            for modality, rows in items.items()
        },
        knock_out=_knock_outs(maker, items, plan, ctx.params.seed),
    )


def _knock_outs(
    maker: ExampleMaker, items: Mapping[str, Sequence[Sample]], plan: Evaluate, seed: int
) -> dict[str, KnockOut]:
    """Return how much each modality loses without one expert of one layer."""
    if not plan.knock_out_items:
        return {}
    layers = maker.model.sparse_layers()
    experts = range(maker.model.config.num_experts)
    drops: dict[str, dict[str, list[float]]] = {}
    with tqdm(total=len(items) * len(layers), desc="knock-outs", file=sys.stderr) as bar:
        for modality, rows in items.items():
            few = chosen(rows, plan.knock_out_items, seed)
            whole = fmean(all_right(maker, few, batch_size=plan.batch_size))
            drops[modality] = {}
            for layer in layers:
                without = []
                for expert in experts:
                    with maker.model.experts_masked({layer: [expert]}):
                        without.append(fmean(all_right(maker, few, batch_size=plan.batch_size)))
                drops[modality][str(layer)] = [whole - score for score in without]
                bar.update()
    return {modality: dict(of) for modality, of in drops.items()}


def _losses(ctx: StageContext) -> dict[str, dict[str, dict[str, float]]]:
    """Return each phase's validation loss before and after, from the artifacts' cards."""
    folders = {
        **{f"align@{name}": ctx.layout.aligned(name) for name in ctx.params.align},
        **{f"experts@{name}": ctx.layout.expert(name) for name in ctx.params.experts},
        "tune": ctx.layout.model,
    }
    return {
        phase: dict(read_card(folder).results["validation_loss"])
        for phase, folder in folders.items()
    }


def _write(
    ctx: StageContext,
    report: EvalReport,
    judged: Mapping[str, Sequence[Judged]],
    parents: tuple[Path, ...],
) -> None:
    params = {
        "seed": ctx.params.seed,
        "evaluate": ctx.params.section("evaluate"),
        "metrics": VERSION,
    }
    with ctx.artifact(ctx.layout.report, kind="report", params=params, parents=parents) as draft:
        write_json(draft.folder / "report.json", report.to_json())
        lines = [
            json.dumps(one.row(), ensure_ascii=False, sort_keys=True)
            for rows in judged.values()
            for one in rows
        ]
        write_text(draft.folder / "answers.jsonl", "\n".join(lines) + "\n")
        pictures = draw(report, draft.folder)
        write_text(draft.folder / "report.html", page(report, pictures))
        draft.results.update(
            mean=report.mean,
            bias=report.bias,
            scores={name: score.score for name, score in report.modalities.items()},
            unparseable=sum(one.scored.unparseable for rows in judged.values() for one in rows),
        )
