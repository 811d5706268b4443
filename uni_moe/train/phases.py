"""The three phases of the paper as stages: align@connector, experts@modality, tune.

What learns, from what and how long stands in params.yaml; this file builds, trains and saves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from uni_moe.artifacts import parent_ids, read_json, write_json
from uni_moe.config import Phase
from uni_moe.data.corpus import Corpus, open_corpus
from uni_moe.examples import ExampleMaker
from uni_moe.model import adapters
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.parts import learn
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.platform import device, settle
from uni_moe.stage import StageContext
from uni_moe.train.assemble import RECEIPT
from uni_moe.train.conversations import (
    Conversations,
    check_not_empty,
    read_conversations,
    read_holes,
    within_sight,
)
from uni_moe.train.learner import PhaseLearner
from uni_moe.train.loop import Schedule, train
from uni_moe.train.networks import (
    CONNECTOR,
    ENCODERS,
    build_dense,
    connector_state,
    encoder_of,
)
from uni_moe.train.state import StateStore, open_states

# The encoders whose foundation and connector dvc.yaml gives to an expert's stage: spoken questions
# about pictures need eyes. A connector is aligned with its own encoder alone.
_EXPERT_SEES = {
    "image": ("image",),
    "video": ("image",),
    "audio": ("audio",),
    "speech": ("image", "speech"),
}
EXPERT = "expert.safetensors"
ADAPTER = "adapter"


def align(ctx: StageContext) -> None:
    """Train one connector on captions or transcripts; everything else is frozen."""
    phase = ctx.params.align[ctx.item]  # type: ignore[index] # dvc.yaml names known connectors
    params = _params(ctx, "align", ctx.item)
    with _data(ctx, phase) as (corpora, training, validation):
        built = build_dense(
            ctx.layout,
            ctx.params.model,
            _encoders(training, validation),
            aligned=(),
            seed=ctx.params.seed,
        )
        parents = (*_corpora(ctx, phase), *built.parents)
        learn(built.model, phase.learns)
        model = built.model.to(device())
        maker = ExampleMaker(corpora, built.processor, built.model, phase.packing)
        states = open_states(ctx, params, parent_ids(ctx.layout, *parents))
        results = _train(ctx, phase, model, maker, training, validation, states)
    with ctx.artifact(
        ctx.layout.aligned(ctx.item), kind="connector", params=params, parents=parents
    ) as draft:
        save_file(connector_state(model, ctx.item), draft.folder / CONNECTOR)
        draft.results.update(results)
    states.clear()


def experts(ctx: StageContext) -> None:
    """Train one expert: low-rank adapters on the feed-forwards that will become sparse."""
    phase = ctx.params.experts[ctx.item]  # type: ignore[index] # dvc.yaml names known experts
    params = _params(ctx, "experts", ctx.item)
    with _data(ctx, phase) as (corpora, training, validation):
        encoders = _encoders(training, validation)
        built = build_dense(
            ctx.layout, ctx.params.model, encoders, aligned=encoders, seed=ctx.params.seed
        )
        parents = (*_corpora(ctx, phase), *built.parents)
        wrapped = _attach(ctx, phase, built.model)
        learned = learn(wrapped, phase.learns)
        wrapped.to(device())
        maker = ExampleMaker(corpora, built.processor, built.model, phase.packing)
        states = open_states(ctx, params, parent_ids(ctx.layout, *parents))
        results = _train(ctx, phase, wrapped, maker, training, validation, states)
    with ctx.artifact(
        ctx.layout.expert(ctx.item), kind="expert", params=params, parents=parents
    ) as draft:
        _save_adapter(wrapped, draft.folder / ADAPTER)
        merged = adapters.merge(wrapped)
        feed_forwards = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in merged.state_dict().items()
            if any(
                name.startswith(f"language_model.model.layers.{i}.mlp.")
                for i in ctx.params.model.sparse_layers
            )
        }
        save_file(feed_forwards, draft.folder / EXPERT)
        for part in phase.learns:
            group, _, connector = part.partition(".")
            if group == "connector":
                state = connector_state(merged, connector)
                save_file(state, draft.folder / f"{connector}.{CONNECTOR}")
        draft.results.update(results, learned=len(learned))
    states.clear()


def tune(ctx: StageContext) -> None:
    """Tune the assembled mixture on mixed data: the candidate."""
    phase = ctx.params.tune
    params = _params(ctx, "tune")
    parents = (*_corpora(ctx, phase), ctx.layout.assembled)
    with _data(ctx, phase) as (corpora, training, validation):
        folder = ctx.layout.assembled
        ids = parent_ids(ctx.layout, *parents)
        base = UniMoeForConditionalGeneration.from_pretrained(folder, local_files_only=True)
        processor = UniMoeProcessor.from_pretrained(folder)
        wrapped = _attach(ctx, phase, base)
        learned = learn(wrapped, phase.learns)
        wrapped.to(device())
        maker = ExampleMaker(corpora, processor, base, phase.packing)
        states = open_states(ctx, params, ids)
        results = _train(ctx, phase, wrapped, maker, training, validation, states)
    with ctx.artifact(ctx.layout.model, kind="model", params=params, parents=parents) as draft:
        if phase.lora is not None:
            _save_adapter(wrapped, draft.folder / ADAPTER)
            adapters.merge(wrapped)
        base.eval()
        base.config.name_or_path = ""
        base.save_pretrained(draft.folder)
        processor.save_pretrained(draft.folder)
        write_json(draft.folder / RECEIPT, read_json(ctx.layout.assembled / RECEIPT))
        draft.results.update(results, learned=len(learned))
    states.clear()


def _train(  # noqa: PLR0913 - the one place where a phase's things meet
    ctx: StageContext,
    phase: Phase,
    model: nn.Module,
    maker: ExampleMaker,
    training: Conversations,
    validation: Conversations,
    states: StateStore,
) -> dict[str, Any]:
    holes = read_holes(maker.corpora, "train", phase, _sees(ctx))
    learner = PhaseLearner(
        model,
        maker,
        phase,
        name=ctx.name,
        train=training,
        validation=validation,
        seed=ctx.params.seed,
        holes=holes,
    )
    schedule = Schedule(
        steps=phase.steps,
        learning_rate=phase.learning_rate,
        warmup_share=phase.warmup_share,
        weight_decay=phase.weight_decay,
        clip_norm=phase.clip_norm,
        save_every_steps=phase.save_every_steps,
        seed=ctx.params.seed,
    )
    results = train(learner, schedule, states=states, run=ctx.run, title=ctx.name)
    results["conversations"] = _counts(training)
    return results


def _sees(ctx: StageContext) -> Collection[str]:
    """Return the encoders that a phase's conversations may be read by."""
    if ctx.name == "tune":
        return ENCODERS
    return _EXPERT_SEES[ctx.item] if ctx.name.startswith("experts@") else (ctx.item,)


@contextmanager
def _data(
    ctx: StageContext, phase: Phase
) -> Iterator[tuple[dict[str, Corpus], Conversations, Conversations]]:
    """Open the corpora of a phase's blend and read the conversations that its encoders read."""
    ctx.run.event("platform", **settle(ctx.params.platform))
    corpora = {modality: open_corpus(ctx.layout.corpus(modality)) for modality in phase.blend}
    try:
        prompts = ctx.params.prepare.caption_prompts
        found = [
            read_conversations(corpora, name, phase, prompts) for name in ("train", "validation")
        ]
        training, validation = (within_sight(one, _sees(ctx)) for one in found)
        check_not_empty(training, phase)
        unseen = {name: len(found[0][name]) - len(rows) for name, rows in training.items()}
        ctx.run.event("conversations", drawn_from=_counts(training), out_of_sight=unseen)
        yield corpora, training, validation
    finally:
        for corpus in corpora.values():
            corpus.close()


def _attach(ctx: StageContext, phase: Phase, model: UniMoeForConditionalGeneration) -> nn.Module:
    if phase.lora is None:
        return model
    return adapters.attach(
        model,
        phase.learns,
        layers=ctx.params.model.sparse_layers,
        rank=phase.lora.rank,
        alpha=phase.lora.alpha,
        dropout=phase.lora.dropout,
        seed=ctx.params.seed,
    )


def _save_adapter(wrapped: nn.Module, folder: Path) -> None:
    """Write adapters in stock peft's layout."""
    folder.mkdir()
    state = {name: t.cpu().contiguous() for name, t in adapters.adapter_state(wrapped).items()}
    save_file(state, folder / "adapter_model.safetensors")
    write_json(folder / "adapter_config.json", adapters.adapter_config(wrapped))


def _encoders(*sets: Conversations) -> set[str]:
    """Return the encoders that read the media of these conversations."""
    return {
        encoder_of(ref.kind)
        for conversations in sets
        for rows in conversations.values()
        for sample in rows.values()
        for ref in sample.media
    } & set(ENCODERS)


def _counts(conversations: Conversations) -> dict[str, int]:
    return {modality: len(rows) for modality, rows in conversations.items()}


def _corpora(ctx: StageContext, phase: Phase) -> tuple[Path, ...]:
    return tuple(ctx.layout.corpus(modality) for modality in sorted(phase.blend))


def _params(ctx: StageContext, *section: str) -> Mapping[str, Any]:
    """Return what the stage depends on, for its card and its training state."""
    return {
        "seed": ctx.params.seed,
        "platform": ctx.params.section("platform"),
        "model": ctx.params.section("model"),
        "prepare": ctx.params.section("prepare"),
        section[0]: ctx.params.section(*section),
    }
