"""The three phases of the paper as stages: align@connector, experts@modality, tune.

What learns, from what and how long stands in params.yaml; this file builds, trains and saves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from uni_moe import routes
from uni_moe.artifacts import Draft, parent_ids, read_json, write_json
from uni_moe.config import Phase, RoutingLosses
from uni_moe.data.conservation import check_draws
from uni_moe.examples import ExampleMaker
from uni_moe.feature_maker import open_features
from uni_moe.launch import here
from uni_moe.lengths import tokens_of
from uni_moe.machine import Machine
from uni_moe.model import adapters
from uni_moe.model.assembly import RECEIPT, tuned
from uni_moe.model.config import sparse_layers_of
from uni_moe.model.merging import ADAPTER_CONFIG, ADAPTER_FILES, BASE_NOTE
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.parts import learn
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.model.slots import mlp_of
from uni_moe.platform import device, machine
from uni_moe.stage import StageContext
from uni_moe.train.accounting import account_for
from uni_moe.train.beginning import mixture_to_tune
from uni_moe.train.conversations import read_holes, sight_of
from uni_moe.train.engine import EngineOptions
from uni_moe.train.learner import PhaseLearner
from uni_moe.train.ledger import Ledger
from uni_moe.train.loop import Schedule, train
from uni_moe.train.networks import CONNECTOR, build_dense, connector_state
from uni_moe.train.phase_data import PhaseData, corpora_of, counts_of, open_data
from uni_moe.train.precision import DTYPES, finish, hold
from uni_moe.train.state import StateStore, open_states
from uni_moe.train.telemetry import Telemetry
from uni_moe.train.watch import Watch
from uni_moe.train.work import device_peak, work_of
from uni_moe.train.world import leave, patient, same_on_all

EXPERT = "expert.safetensors"
ADAPTER = "adapter"


def align(ctx: StageContext) -> None:
    """Train one connector on captions or transcripts; everything else is frozen."""
    phase = ctx.params.align[ctx.item]  # type: ignore[index] # dvc.yaml names known connectors
    params = _params(ctx, "align", ctx.item)
    with open_data(ctx, phase) as data:
        shape, seed = ctx.params.model, ctx.params.seed
        built = build_dense(ctx.layout, shape, data.encoders(), aligned=(), seed=seed)
        parents = (*corpora_of(ctx, phase), *built.parents)
        ids = parent_ids(ctx.layout, *parents)
        trained = _train(ctx, phase, data, built.model, built.model, built.processor, params, ids)
    if not here().is_first:
        leave(trained.others)
        return
    folder = ctx.layout.aligned(ctx.item)
    with _artifact(ctx, phase, trained, folder, "connector", params, parents) as draft:
        save_file(connector_state(built.model, ctx.item), draft.folder / CONNECTOR)


def experts(ctx: StageContext) -> None:
    """Train one expert: low-rank adapters on the feed-forwards that will become sparse."""
    phase = ctx.params.experts[ctx.item]  # type: ignore[index] # dvc.yaml names known experts
    params = _params(ctx, "experts", ctx.item)
    with open_data(ctx, phase) as data:
        shape, seed, encoders = ctx.params.model, ctx.params.seed, data.encoders()
        built = build_dense(ctx.layout, shape, encoders, aligned=encoders, seed=seed)
        parents = (*corpora_of(ctx, phase), *built.parents)
        ids = parent_ids(ctx.layout, *parents)
        wrapped = _attach(ctx, phase, built.model)
        trained = _train(ctx, phase, data, wrapped, built.model, built.processor, params, ids)
    if not here().is_first:
        leave(trained.others)
        return
    folder = ctx.layout.expert(ctx.item)
    with _artifact(ctx, phase, trained, folder, "expert", params, parents) as draft:
        _save_adapter(wrapped, draft.folder / ADAPTER)
        layers = _layers(ctx, built.model)
        merged = adapters.merge(wrapped)
        dtype = DTYPES[ctx.params.platform.precision]
        feed_forwards = {
            name: tensor.detach().to("cpu", dtype).contiguous()
            for name, tensor in merged.state_dict().items()
            if any(name.startswith(mlp_of(layer)) for layer in layers)
        }
        save_file(feed_forwards, draft.folder / EXPERT)
        for part in phase.learns:
            group, _, connector = part.partition(".")
            if group in ("connector", "projection"):
                state = connector_state(merged, connector)
                save_file(state, draft.folder / f"{connector}.{CONNECTOR}")


def tune(ctx: StageContext) -> None:
    """Tune the assembled mixture, or a registered model, on mixed data: the candidate."""
    phase = ctx.params.tune
    params = _params(ctx, "tune")
    folder = mixture_to_tune(ctx.layout, phase.start)
    parents = (*corpora_of(ctx, phase), folder)
    with open_data(ctx, phase) as data:
        ids = parent_ids(ctx.layout, *parents)
        base = UniMoeForConditionalGeneration.from_pretrained(folder, local_files_only=True)
        _weigh(base, phase.losses)
        processor = UniMoeProcessor.from_pretrained(folder)
        wrapped = _attach(ctx, phase, base)
        trained = _train(ctx, phase, data, wrapped, base, processor, params, ids)
    if not here().is_first:
        leave(trained.others)
        return
    with _artifact(ctx, phase, trained, ctx.layout.model, "model", params, parents) as draft:
        if phase.lora is not None:
            _save_adapter(wrapped, draft.folder / ADAPTER)
            adapters.merge(wrapped)
        finish(base, ctx.params.platform.precision)
        base.eval()
        base.config.name_or_path = ""
        base.save_pretrained(draft.folder)
        processor.save_pretrained(draft.folder)
        write_json(draft.folder / RECEIPT, tuned(read_json(folder / RECEIPT)))


@dataclass(frozen=True)
class _Trained:
    """What a phase's training leaves beside its weights."""

    maker: ExampleMaker
    states: StateStore
    ledger: Ledger
    results: Mapping[str, Any]
    others: Any  # ranks that stay until the first has written it


def _train(  # noqa: PLR0913 - the one place where a phase's things meet
    ctx: StageContext,
    phase: Phase,
    data: PhaseData,
    model: nn.Module,
    network: UniMoeForConditionalGeneration,
    processor: UniMoeProcessor,
    params: Mapping[str, Any],
    parents: Mapping[str, str],
) -> _Trained:
    """Let the parts learn that a phase names; `model` is the network with its adapters."""
    learned = learn(model, phase.learns)
    hold(model, ctx.params.platform.precision)
    for tower in network.towers():  # the engine moves the rest, or partitions it
        tower.to(device())
    states = open_states(ctx, _training_params(params), parents)
    ledger = Ledger(states.folder / "ledger")
    with open_features(ctx, network, processor) as features:
        maker = ExampleMaker(data.corpora, processor, network, features, phase.packing)
        results = _loop(ctx, phase, data, model, maker, states, ledger)
    return _Trained(maker, states, ledger, {**results, "learned": len(learned)}, patient())


def _loop(  # noqa: PLR0913 - see above
    ctx: StageContext,
    phase: Phase,
    data: PhaseData,
    model: nn.Module,
    maker: ExampleMaker,
    states: StateStore,
    ledger: Ledger,
) -> dict[str, Any]:
    same_on_all(goes_by(states.folder.name, ctx.machine))
    holes = read_holes(maker.corpora, "train", phase, sight_of(ctx.name))
    learner = PhaseLearner(
        model,
        maker,
        phase,
        name=ctx.name,
        train=data.training,
        validation=data.validation,
        seed=ctx.params.seed,
        holes=holes,
        precision=ctx.params.platform.precision,
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
    peak = device_peak(ctx.params.platform.precision)
    telemetry = Telemetry(
        ctx.params.telemetry,
        work=work_of(model),
        peak_flops=None if peak is None else peak * here().size,
    )
    watch = Watch(
        ctx.params.telemetry, telemetry=telemetry, ledger=ledger if here().is_first else None
    )
    maker.model.runs_every_connector = options.partitions_weights
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
    if here().is_first:
        check_draws(learner.steps.taken(phase.steps, results["skipped_steps"]), ledger.entries())
    results["conversations"] = counts_of(data.training)
    return results


def _training_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a training state depends on.

    Of `telemetry` that is what makes an alarm of a loss. What the guard does about alarms is held
    to those that there were: a training goes on where it would have done the same.
    """
    guard = params["telemetry"]["guard"]
    alarms = {name: guard[name] for name in ("window_steps", "spike_deviations")}
    return {**params, "telemetry": alarms}


def goes_by(training: str, profile: Machine) -> dict[str, str]:
    """Return what decides what a rank computes, and to which bits.

    Args:
        training: the name of its states' folder: stage, params, inputs and code.
        profile: how it is spread.
    """
    told = {**routes.current().to_json(), **machine()}
    del told["allocator"]  # it changes no bits
    return {
        "the training": training,
        "machine.yaml": profile.spread,
        **{f"its {name}": str(value) for name, value in told.items()},
    }


@contextmanager
def _artifact(  # noqa: PLR0913 - what a card says, and where it stands
    ctx: StageContext,
    phase: Phase,
    trained: _Trained,
    folder: Path,
    kind: str,
    params: Mapping[str, Any],
    parents: tuple[Path, ...],
) -> Iterator[Draft]:
    """Write what a phase leaves, with its ledger: every sample is somewhere, or nothing is written.

    Raises:
        StageError: a sample is not accounted for.
    """
    with ctx.artifact(folder, kind=kind, params=params, parents=parents) as draft:
        yield draft
        draft.results["ledger"] = trained.ledger.write(draft.folder)
        draft.results["exposure"] = account_for(
            draft.folder,
            trained.maker.corpora,
            phase,
            ctx.params.prepare.caption_prompts,
            partial(tokens_of, trained.maker.processor),
        )
        trained.states.write(draft.folder)
        draft.results.update(trained.results)
    trained.states.clear()
    leave(trained.others)


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
    save_file(state, folder / ADAPTER_FILES[0])
    write_json(folder / ADAPTER_CONFIG, adapters.adapter_config(wrapped))
    write_json(folder / BASE_NOTE, adapters.base_note(wrapped))


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
