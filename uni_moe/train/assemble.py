"""The stage `assemble`: trained experts into the slots of the mixture, with a receipt."""

from __future__ import annotations

from safetensors.torch import load_file

from uni_moe.artifacts import parent_ids, write_json
from uni_moe.model.assembly import RECEIPT, plan_assembly
from uni_moe.model.assembly import assemble as assemble_state
from uni_moe.model.config import UniMoeConfig, sparse_layers_of
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.platform import settle
from uni_moe.stage import StageContext
from uni_moe.train.networks import CONNECTOR, ENCODERS, build_dense, load_connector
from uni_moe.train.precision import finish


def assemble(ctx: StageContext) -> None:
    """Fill the slots that params list and write the complete, untuned mixture."""
    ctx.run.event("platform", **settle(ctx.params.platform))
    shape, assembly = ctx.params.model, ctx.params.assembly
    dense = build_dense(ctx.layout, shape, ENCODERS, aligned=ENCODERS, seed=ctx.params.seed)
    precision = ctx.params.platform.precision
    donors = sorted({*(set(assembly.slots) - {"base"}), *assembly.connectors_from.values()})
    parents = (*dense.parents, *(ctx.layout.expert(name) for name in donors))
    parent_ids(ctx.layout, *parents)  # verified before they are read
    for connector, donor in assembly.connectors_from.items():
        load_connector(dense.model, ctx.layout.expert(donor) / f"{connector}.{CONNECTOR}")
    experts = {name: load_file(ctx.layout.expert(name) / "expert.safetensors") for name in donors}
    finish(dense.model, precision)
    base = dense.model.state_dict()
    layers = sparse_layers_of(shape.sparse_layers, dense.model.config.text_config.num_hidden_layers)
    plan = plan_assembly(
        base, experts, sparse_layers=layers, slots=assembly.slots, router_seed=ctx.params.seed
    )
    config = UniMoeConfig.from_dict(
        {
            **dense.model.config.to_dict(),
            "sparse_layers": layers,
            "num_experts": len(assembly.slots),
            "modality_adapters": assembly.modality_adapters,
        }
    )
    model = UniMoeForConditionalGeneration(config)
    fresh = {name: t for name, t in model.state_dict().items() if ".mlp.adapters." in name}
    model.load_state_dict({**assemble_state(plan, base, experts), **fresh})
    finish(model, precision)
    with ctx.artifact(
        ctx.layout.assembled,
        kind="model",
        params={
            "seed": ctx.params.seed,
            "platform": ctx.params.section("platform"),
            "model": ctx.params.section("model"),
            "assembly": ctx.params.section("assembly"),
        },
        parents=parents,
    ) as draft:
        model.eval().save_pretrained(draft.folder)
        dense.processor.save_pretrained(draft.folder)
        write_json(draft.folder / RECEIPT, plan.receipt())
        draft.results["parameters"] = sum(p.numel() for p in model.parameters())
