"""The three phases of the paper as stages: align@connector, experts@modality, tune.

What learns, from what and how long stands in params.yaml; this file builds, trains and saves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from uni_moe.artifacts import Draft, parent_ids, read_json, write_json
from uni_moe.config import Phase, RoutingLosses
from uni_moe.data.corpus import Corpus, open_corpus
from uni_moe.examples import ExampleMaker
from uni_moe.feature_maker import open_features
from uni_moe.launch import here
from uni_moe.model import adapters
from uni_moe.model.assembly import RECEIPT, tuned
from uni_moe.model.config import sparse_layers_of
from uni_moe.model.merging import BASE_NOTE
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.parts import learn
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.platform import device, settle
from uni_moe.stage import StageContext
from uni_moe.train.accounting import account_for, token_counter
from uni_moe.train.conversations import (
    Conversations,
    check_not_empty,
    read_conversations,
    read_holes,
    sight_of,
    within_sight,
)
from uni_moe.train.engine import EngineOptions
from uni_moe.train.learner import PhaseLearner
from uni_moe.train.ledger import Ledger
from uni_moe.train.loop import Schedule, train
from uni_moe.train.networks import (
    CONNECTOR,
    ENCODERS,
    build_dense,
    connector_state,
    encoder_of,
)
from uni_moe.train.preflight import check_phase
from uni_moe.train.state import StateStore, open_states
from uni_moe.train.telemetry import Telemetry
from uni_moe.train.watch import Watch
from uni_moe.train.work import device_peak, work_of
from uni_moe.train.world import join, leave

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
        states = _states(ctx, params, parent_ids(ctx.layout, *parents))
        ledger = _ledger(states)
        with open_features(ctx, built.model, built.processor) as features:
            maker = ExampleMaker(corpora, built.processor, built.model, features, phase.packing)
            results = _train(ctx, phase, model, maker, training, validation, states, ledger)
    if not leave().is_first:
        return
    with ctx.artifact(
        ctx.layout.aligned(ctx.item), kind="connector", params=params, parents=parents
    ) as draft:
        save_file(connector_state(model, ctx.item), draft.folder / CONNECTOR)
        _account(ctx, phase, maker, ledger, draft)
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
        states = _states(ctx, params, parent_ids(ctx.layout, *parents))
        ledger = _ledger(states)
        with open_features(ctx, built.model, built.processor) as features:
            maker = ExampleMaker(corpora, built.processor, built.model, features, phase.packing)
            results = _train(ctx, phase, wrapped, maker, training, validation, states, ledger)
    if not leave().is_first:
        return
    with ctx.artifact(
        ctx.layout.expert(ctx.item), kind="expert", params=params, parents=parents
    ) as draft:
        _save_adapter(wrapped, draft.folder / ADAPTER)
        layers = _layers(ctx, built.model)
        merged = adapters.merge(wrapped)
        feed_forwards = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in merged.state_dict().items()
            if any(name.startswith(f"language_model.model.layers.{i}.mlp.") for i in layers)
        }
        save_file(feed_forwards, draft.folder / EXPERT)
        for part in phase.learns:
            group, _, connector = part.partition(".")
            if group in ("connector", "projection"):
                state = connector_state(merged, connector)
                save_file(state, draft.folder / f"{connector}.{CONNECTOR}")
        _account(ctx, phase, maker, ledger, draft)
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
        _weigh(base, phase.losses)
        processor = UniMoeProcessor.from_pretrained(folder)
        wrapped = _attach(ctx, phase, base)
        learned = learn(wrapped, phase.learns)
        wrapped.to(device())
        states = _states(ctx, params, ids)
        ledger = _ledger(states)
        with open_features(ctx, base, processor) as features:
            maker = ExampleMaker(corpora, processor, base, features, phase.packing)
            results = _train(ctx, phase, wrapped, maker, training, validation, states, ledger)
    if not leave().is_first:
        return
    with ctx.artifact(ctx.layout.model, kind="model", params=params, parents=parents) as draft:
        if phase.lora is not None:
            _save_adapter(wrapped, draft.folder / ADAPTER)
            adapters.merge(wrapped)
        base.eval()
        base.config.name_or_path = ""
        base.save_pretrained(draft.folder)
        processor.save_pretrained(draft.folder)
        write_json(draft.folder / RECEIPT, tuned(read_json(ctx.layout.assembled / RECEIPT)))
        _account(ctx, phase, maker, ledger, draft)
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
    ledger: Ledger,
) -> dict[str, Any]:
    holes = read_holes(maker.corpora, "train", phase, sight_of(ctx.name))
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
    options = EngineOptions(
        zero_stage=ctx.machine.zero_stage,
        offload_optimizer=ctx.machine.offload_optimizer,
        expert_parallel=ctx.machine.expert_parallel if ctx.name == "tune" else 1,
    )
    peak = device_peak()
    telemetry = Telemetry(
        ctx.params.telemetry,
        work=work_of(model),
        peak_flops=None if peak is None else peak * here().size,
    )
    watch = Watch(
        ctx.params.telemetry, telemetry=telemetry, ledger=ledger if here().is_first else None
    )
    if ctx.machine.activation_checkpointing:
        maker.model.gradient_checkpointing_enable({"use_reentrant": False})
    with maker.model.towers_aside():
        results = train(
            learner,
            schedule,
            states=states,
            run=ctx.run,
            title=ctx.name,
            options=options,
            watch=watch,
        )
    results["conversations"] = _counts(training)
    results["ranks"] = here().size
    return results


def _states(ctx: StageContext, params: Mapping[str, Any], parents: Mapping[str, str]) -> StateStore:
    """Return the states of this training; with another `telemetry` it is the same one."""
    return open_states(ctx, {k: v for k, v in params.items() if k != "telemetry"}, parents)


def _ledger(states: StateStore) -> Ledger:
    """Return the ledger of a training; it lives beside the states that keep its positions."""
    return Ledger(states.folder / "ledger")


def _account(
    ctx: StageContext, phase: Phase, maker: ExampleMaker, ledger: Ledger, draft: Draft
) -> None:
    """Put the ledger into the artifact, and hold the law that every sample is somewhere.

    Raises:
        StageError: it does not hold.
    """
    draft.results["ledger"] = ledger.write(draft.folder)
    processor = maker.processor
    draft.results["exposure"] = account_for(
        draft.folder,
        maker.corpora,
        phase,
        ctx.params.prepare.caption_prompts,
        token_counter(processor.tokenizer, processor.system_prompt),
    )


@contextmanager
def _data(
    ctx: StageContext, phase: Phase
) -> Iterator[tuple[dict[str, Corpus], Conversations, Conversations]]:
    """Open the corpora of a phase's blend, read the conversations that the stage's encoders can."""
    ctx.run.event("platform", **settle(ctx.params.platform))
    join(ctx.machine.patience_s)
    corpora = {modality: open_corpus(ctx.layout.corpus(modality)) for modality in phase.blend}
    try:
        prompts = ctx.params.prepare.caption_prompts
        found = [
            read_conversations(corpora, name, phase, prompts) for name in ("train", "validation")
        ]
        training, validation = (
            within_sight(conversations, sight_of(ctx.name)) for conversations in found
        )
        check_not_empty(training, phase)
        unseen = {name: len(found[0][name]) - len(rows) for name, rows in training.items()}
        ctx.run.event("conversations", drawn_from=_counts(training), out_of_sight=unseen)
        check_phase(ctx, phase, corpora, training, _encoders(training, validation))
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
        layers=_layers(ctx, model),
        rank=phase.lora.rank,
        alpha=phase.lora.alpha,
        dropout=phase.lora.dropout,
        seed=ctx.params.seed,
    )


def _layers(ctx: StageContext, model: UniMoeForConditionalGeneration) -> list[int]:
    """Return the layers that are mixtures, or will be."""
    count = model.config.text_config.num_hidden_layers
    return sparse_layers_of(ctx.params.model.sparse_layers, count)


def _weigh(model: UniMoeForConditionalGeneration, losses: RoutingLosses) -> None:
    """Let a mixture learn from the losses of its routing; the tuned model keeps saying so."""
    for name in ("balance", "target", "divergence"):
        setattr(model.config, f"{name}_coefficient", getattr(losses, name))
    model.config.expert_targets = {k: list(v) for k, v in losses.expert_targets.items()}


def _save_adapter(wrapped: nn.Module, folder: Path) -> None:
    """Write adapters in stock peft's layout."""
    folder.mkdir()
    state = {name: t.cpu().contiguous() for name, t in adapters.adapter_state(wrapped).items()}
    save_file(state, folder / "adapter_model.safetensors")
    write_json(folder / "adapter_config.json", adapters.adapter_config(wrapped))
    write_json(folder / BASE_NOTE, adapters.base_note(wrapped))


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
        "telemetry": ctx.params.section("telemetry"),
        section[0]: ctx.params.section(*section),
    }
