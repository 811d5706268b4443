"""The stage `foundation@part`: pretrained folders by path and hash, or tiny parts trained here."""

from __future__ import annotations

from typing import Any

import torch

from uni_moe.artifacts import files_of, parent_ids, write_json
from uni_moe.config import EncoderTraining, LanguageTraining
from uni_moe.platform import settle
from uni_moe.records import canonical_json, sha256_text
from uni_moe.stage import StageContext
from uni_moe.train.encoders import TINY, EncoderLearner
from uni_moe.train.language import LanguageLearner, tiny_language
from uni_moe.train.loop import Schedule, train
from uni_moe.train.pool import gather
from uni_moe.train.pretrained import PRETRAINED, look_at
from uni_moe.train.state import open_states

# part -> the modalities whose corpora a tiny one learns from
CORPORA = {
    "image": ("image", "video"),
    "audio": ("audio",),
    "speech": ("speech",),
    "language": ("text",),
}


def train_foundation(ctx: StageContext) -> None:
    """Make one part of the foundation: image, audio, speech or language."""
    ctx.run.event("platform", **settle(ctx.params.platform))
    choice = getattr(ctx.params.foundation, ctx.item)
    if choice.pretrained is not None:
        _adopt(ctx, choice.pretrained)
    elif ctx.item == "language":
        _train_language(ctx, choice.tiny)
    else:
        _train_encoder(ctx, choice.tiny)


def _adopt(ctx: StageContext, pretrained: str) -> None:
    """Record a pretrained folder by path and hash. Nothing is copied, nothing is fetched."""
    folder = (ctx.layout.root / pretrained).resolve()
    look_at(ctx.item, folder, pretrained)
    with ctx.artifact(
        ctx.layout.foundation(ctx.item),
        kind="foundation",
        params=_params(ctx),
        parents=(),
    ) as draft:
        files = files_of(folder)
        write_json(draft.folder / PRETRAINED, {"path": pretrained, "files": files})
        draft.results["pretrained"] = True
    version = sha256_text(canonical_json(files))
    ctx.run.read(folder.as_posix(), version, namespace="file")


def _train_encoder(ctx: StageContext, plan: EncoderTraining) -> None:
    parents = tuple(ctx.layout.corpus(modality) for modality in CORPORA[ctx.item])
    ids = parent_ids(ctx.layout, *parents)
    torch.manual_seed(ctx.params.seed)
    encoder = TINY[ctx.item](plan.architecture)
    pool = gather(parents, ctx.item, "train", encoder.prepare)
    held_out = gather(parents, ctx.item, "validation", encoder.prepare)
    learner = EncoderLearner(encoder, plan, pool, held_out, ctx.params.seed)
    states = open_states(ctx, _params(ctx), ids)
    results = train(
        learner, _schedule(ctx, plan), states=states, run=ctx.run, title=f"foundation {ctx.item}"
    )
    with ctx.artifact(
        ctx.layout.foundation(ctx.item), kind="foundation", params=_params(ctx), parents=parents
    ) as draft:
        encoder.module.eval().save_pretrained(draft.folder)
        if encoder.extractor is not None:
            encoder.extractor.save_pretrained(draft.folder)
        states.write(draft.folder)
        draft.results.update(results, media=len(pool.media), captioned=len(pool.captioned))
    states.clear()


def _train_language(ctx: StageContext, plan: LanguageTraining) -> None:
    parents = tuple(ctx.layout.corpus(modality) for modality in CORPORA["language"])
    ids = parent_ids(ctx.layout, *parents)
    torch.manual_seed(ctx.params.seed)
    language = tiny_language(parents[0], plan, ctx.params.model.system_prompt)
    learner = LanguageLearner(language, plan, ctx.params.seed)
    states = open_states(ctx, _params(ctx), ids)
    results = train(
        learner, _schedule(ctx, plan), states=states, run=ctx.run, title="foundation language"
    )
    with ctx.artifact(
        ctx.layout.foundation("language"), kind="foundation", params=_params(ctx), parents=parents
    ) as draft:
        language.model.eval().save_pretrained(draft.folder)
        language.tokenizer.save_pretrained(draft.folder)
        states.write(draft.folder)
        draft.results.update(results)
    states.clear()


def _schedule(ctx: StageContext, plan: EncoderTraining | LanguageTraining) -> Schedule:
    return Schedule(
        steps=plan.steps,
        learning_rate=plan.learning_rate,
        warmup_share=plan.warmup_share,
        weight_decay=plan.weight_decay,
        clip_norm=plan.clip_norm,
        save_every_steps=plan.save_every_steps,
        seed=ctx.params.seed,
    )


def _params(ctx: StageContext) -> dict[str, Any]:
    """Return the parameters this stage depends on, for its card and its training state."""
    params = {
        "seed": ctx.params.seed,
        "platform": ctx.params.section("platform"),
        "foundation": ctx.params.section("foundation", ctx.item),
    }
    if ctx.item == "language":
        params["model"] = ctx.params.section("model", "system_prompt")
    return params
