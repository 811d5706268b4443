"""The stage `evaluate`: the tuned model against the test split, with everything a judge needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from uni_moe.artifacts import read_card, read_json, verified_card, write_json, write_text
from uni_moe.config import Evaluate
from uni_moe.data.corpus import Corpus, open_corpus
from uni_moe.errors import LineageError, StageError
from uni_moe.evaluate.answering import Recital, answerer, expert_load, recitals
from uni_moe.evaluate.judge import Judged, by_task, chosen, items_hash, judge, sum_up
from uni_moe.evaluate.metrics import VERSION
from uni_moe.evaluate.page import page
from uni_moe.evaluate.pictures import draw
from uni_moe.examples import ExampleMaker
from uni_moe.feature_maker import open_features
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.platform import device, settle
from uni_moe.progress import progress
from uni_moe.records import MODALITIES, Card, EvalReport, Sample
from uni_moe.stage import StageContext

Losses = Mapping[str, Mapping[str, Mapping[str, float]]]
ByLayer = Mapping[str, list[float]]


@dataclass(frozen=True)
class Examined:
    """What was found out about a model in one modality."""

    judged: Sequence[Judged]
    load: ByLayer
    knock_out: ByLayer


def evaluate(ctx: StageContext) -> None:
    """Judge the candidate and write its report.

    Raises:
        LineageError: the model is absent or changed, or not made of the experts that lie here.
        StageError: no modality has a test item.
    """
    ctx.run.event("platform", **settle(ctx.params.platform))
    folder = ctx.layout.model
    card = verified_card(folder)
    losses = _losses(ctx, card)
    _write(ctx, ctx.layout.report, folder, *_examined(ctx, folder, card.id, losses))


def judge_again(ctx: StageContext, model: Path, earlier: Path) -> Path:
    """Judge a model that was registered before on the items of today; return its new report.

    Args:
        ctx: the run that does it.
        model: where the store keeps the model.
        earlier: its earlier report, which knows the losses of the training that is long over.

    Raises:
        LineageError: the model or its report is not what its card says.
        StageError: no modality has a test item.
    """
    ctx.run.event("platform", **settle(ctx.params.platform))
    card = verified_card(model)
    verified_card(earlier)
    losses = EvalReport.from_json(read_json(earlier / "report.json")).losses
    target = ctx.layout.state / "judged" / card.id
    _write(ctx, target, model, *_examined(ctx, model, card.id, losses))
    return target


def _examined(
    ctx: StageContext, folder: Path, model_id: str, losses: Losses
) -> tuple[EvalReport, Mapping[str, Examined]]:
    plan, seed = ctx.params.evaluate, ctx.params.seed
    corpora = {modality: open_corpus(ctx.layout.corpus(modality)) for modality in MODALITIES}
    try:
        items = {
            modality: found
            for modality, corpus in corpora.items()
            if (found := chosen(corpus.samples("test"), plan.max_items, seed))
        }
        _check_not_empty(items)
        model: Any = UniMoeForConditionalGeneration.from_pretrained(folder, local_files_only=True)
        model.eval().to(device())
        processor = UniMoeProcessor.from_pretrained(folder, local_files_only=True)
        with open_features(ctx, model, processor) as features:
            maker = ExampleMaker(corpora, processor, model, features)
            examined = {
                modality: examine(rows, corpora[modality], maker, plan, seed)
                for modality, rows in items.items()
            }
    finally:
        for corpus in corpora.values():
            corpus.close()
    slots = read_json(folder / "receipt.json")["slots"]
    return summarize(model_id, examined, losses, slots, plan.confidence), examined


def examine(
    items: Sequence[Sample], corpus: Corpus, maker: ExampleMaker, plan: Evaluate, seed: int
) -> Examined:
    """Let the model answer the items of one modality, and look at its experts meanwhile."""
    name = items[0].modality
    answer = answerer(
        maker, batch_size=plan.batch_size, max_new_tokens=plan.max_new_tokens, title=name
    )
    few = chosen(items, plan.knock_out_items, seed)
    return Examined(
        judge(items, corpus.samples("train"), answer, seed=seed),
        expert_load(maker, items, batch_size=plan.batch_size),
        knock_outs(maker.model, recitals(maker, few, batch_size=plan.batch_size), title=name),
    )


def knock_outs(
    model: UniMoeForConditionalGeneration, batches: Sequence[Recital], *, title: str
) -> dict[str, list[float]]:
    """Return, per sparse layer, how much of the recited answers each expert's absence costs.

    Where every token visits every expert, none can be left out: there is nothing to say then.
    """
    experts = range(model.config.num_experts)
    if not batches or len(experts) <= model.config.experts_per_token:
        return {}

    def score() -> float:
        return fmean(right for batch in batches for right in batch.right(model))

    whole = score()
    drops: dict[str, list[float]] = {str(layer): [] for layer in model.sparse_layers()}
    with progress(title=f"{title}: knock-outs", total=len(drops) * len(experts)) as bar:
        for layer in model.sparse_layers():
            for expert in experts:
                with model.experts_masked({layer: [expert]}):
                    drops[str(layer)].append(whole - score())
                bar.update()
    return drops


def summarize(
    model: str,
    examined: Mapping[str, Examined],
    losses: Losses,
    slots: Sequence[str],
    confidence: float,
) -> EvalReport:
    """Return the report of what was found out. Pure."""
    scores = {name: sum_up(found.judged, confidence) for name, found in examined.items()}
    every = [one for found in examined.values() for one in found.judged]
    shares = [score.score for score in scores.values()]
    return EvalReport(
        model=model,
        items={name: items_hash([one.item for one in f.judged]) for name, f in examined.items()},
        modalities=scores,
        tasks={name: sum_up(rows, confidence) for name, rows in by_task(every).items()},
        mean=fmean(shares),
        bias=max(shares) - min(shares),
        losses=losses,
        slots=slots,
        load={name: found.load for name, found in examined.items()},
        knock_out={name: found.knock_out for name, found in examined.items() if found.knock_out},
    )


def _check_not_empty(items: Mapping[str, Sequence[Sample]]) -> None:
    if not items:
        raise StageError(
            "There is nothing to judge the model on.",
            cause="no corpus has a test split.",
            remedy="give some samples the split `test`, or raise `split.test_share` in params.",
        )


def _losses(ctx: StageContext, model: Card) -> Losses:
    """Return the validation losses of every phase that this very model was made by.

    Raises:
        LineageError: a phase ran again after the model had been made of its earlier result.
    """
    made_of = dict(model.parents)
    if ctx.layout.name_of(ctx.layout.assembled) in made_of:  # else it was tuned from another model
        made_of |= read_card(ctx.layout.assembled).parents
    folders = {
        **{f"align@{name}": ctx.layout.aligned(name) for name in ctx.params.align},
        **{f"experts@{name}": ctx.layout.expert(name) for name in ctx.params.experts},
        "assemble": ctx.layout.assembled,
    }
    cards = {
        phase: read_card(folder)
        for phase, folder in folders.items()
        if ctx.layout.name_of(folder) in made_of
    }
    stale = [
        phase
        for phase, card in cards.items()
        if made_of[ctx.layout.name_of(folders[phase])] != card.id
    ]
    if stale:
        raise LineageError(
            f"The model was not made of what lies here: {', '.join(stale)}.",
            cause="these stages ran again after the model had been tuned.",
            remedy="run `dvc repro tune`, then this stage again.",
        )
    return {
        phase: card.results["validation_loss"]
        for phase, card in sorted({**cards, "tune": model}.items())
        if card.results.get("validation_loss")  # a phase without validation conversations has none
    }


def _write(
    ctx: StageContext,
    target: Path,
    model: Path,
    report: EvalReport,
    examined: Mapping[str, Examined],
) -> None:
    layout, plan = ctx.layout, ctx.params.evaluate
    parents: tuple[Path, ...] = (model, *(layout.corpus(m) for m in MODALITIES))
    params = {
        "seed": ctx.params.seed,
        "platform": ctx.params.section("platform"),
        "evaluate": ctx.params.section("evaluate"),
        "metrics": VERSION,
    }
    every = [one for found in examined.values() for one in found.judged]
    with ctx.artifact(target, kind="report", params=params, parents=parents) as draft:
        write_json(draft.folder / "report.json", report.to_json())
        lines = [json.dumps(one.row(), ensure_ascii=False, sort_keys=True) for one in every]
        write_text(draft.folder / "answers.jsonl", "\n".join(lines) + "\n")
        pictures = draw(report, draft.folder)
        write_text(draft.folder / "report.html", page(report, pictures, plan.confidence))
        draft.results.update(
            mean=report.mean,
            bias=report.bias,
            scores={name: score.score for name, score in report.modalities.items()},
            unparseable={
                name: sum(one.scored.unparseable for one in found.judged)
                for name, found in examined.items()
            },
        )
