"""Parts of the page Experts: loads, entropies, the dead, origins, knock-outs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from dashboard import charts_experts as charts
from dashboard import routing as pure
from dashboard.routing import ALL, Loads
from dashboard.showing import chart, nothing
from dashboard.site import link
from dashboard.sources import routing
from dashboard.sources.experts import Surgery
from dashboard.sources.runs import has_folder
from dashboard.words import percent, plain, short
from uni_moe.config import RouterAlarms
from uni_moe.records import MODALITIES, EvalReport
from uni_moe.registry.origins import Made
from uni_moe.registry.read import Version

Slots = Sequence[str]
_PARTS = 120  # points of a curve over time
_CELLS = 1_500  # of all maps together; more are shown one modality at a time
_NAMED = 12  # experts that a sentence names
_HEAT = (
    "Each row is a layer, each column an expert; a layer's shares add up to 100 %. Look for a "
    "column that is dark in every map: nobody visits that expert. Columns that differ between the "
    "maps are specialists."
)


def judged(
    told: EvalReport, rules: RouterAlarms | None, slots: Slots, params: Mapping[str, Any]
) -> None:
    """Show how the judged items were routed."""
    load = pure.with_all(told.load)
    if not pure.modalities_of(load):
        nothing("The report tells no load of experts.", "`uni-moe judge` judges the model again.")
        return
    top_k = (params.get("model") or {}).get("experts_per_token")
    the_dead(load, rules, slots, top_k, "among the judged items, every modality counted alike")
    maps(load, slots, "Where tokens of the judged items go: share of visits", "judged")


def of_last_steps(kept: routing.Kept, rules: RouterAlarms | None, slots: Slots) -> None:
    """Show how the last steps of a training were routed."""
    last = kept.end()
    load = pure.loads_of(last)
    first = kept.last[0].step
    top_k = pure.top_k_of(last)
    the_dead(load, rules, slots, top_k, f"in steps {first} to {last.step}")
    maps(load, slots, f"Where tokens of steps {first} to {last.step} went: share of visits", "last")
    rows = pure.entropy_table(last)
    st.markdown("**Router entropy of these steps, share of an even choice's**")
    st.caption(
        "100 % means that the router is undecided, near 0 % that it sends all tokens one way. Look "
        "for a number that is close to 0."
    )
    st.dataframe(
        _percent(rows),
        hide_index=True,
        key="entropy-last",
        width="content",
        alt="Router entropy by layer and modality, as a share of an even choice's.",
    )


def _percent(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value if name == "layer" else percent(value) for name, value in row.items()}
        for row in rows
    ]


def the_dead(
    load: Loads, rules: RouterAlarms | None, slots: Slots, top_k: int | None, whose: str
) -> None:
    """Say which experts are dead, which some modality hardly visits, and by which rule."""
    experts = max((len(row) for kinds in load.values() for row in kinds.values()), default=0)
    if top_k is not None and experts and top_k >= experts:
        st.info("Every token visits every expert here, so none can be dead.")
        return
    if rules is None:
        st.info(
            "Nothing is said of dead experts: its params do not tell `telemetry.router`, by which "
            "its training would have judged."
        )
        return
    limit = rules.dead_share
    even = limit / max(1, experts)
    rule = f"less than {percent(even)} of a layer's visits, {percent(limit)} of an even load"
    unknown = pure.unknown_cells(load)
    if unknown:
        st.warning(f"{unknown} loads are no number; nothing is said of them.")
    found = pure.quiet_ones(load, limit)
    gone = [one for one in found if one.is_dead]
    if gone:
        named = "; ".join(_named(one, slots) for one in gone[:_NAMED])
        st.error(plain(f"{_experts(len(gone))} dead: {named}.", 2000), icon=":material/warning:")
    elif not unknown:
        st.success(f"No expert is dead {whose}.", icon=":material/check_circle:")
    st.caption(f"Dead means {rule} (`telemetry.router.dead_share`), {whose}.")
    shunned = [one for one in found if not one.is_dead]
    if shunned:
        named = "; ".join(_shunned(one, slots) for one in shunned[:_NAMED])
        more = f"; and {len(shunned) - _NAMED} more" if len(shunned) > _NAMED else ""
        st.text(f"Alive, but hardly visited by some modalities: {named}{more}.")


def _experts(count: int) -> str:
    return "1 expert is" if count == 1 else f"{count} experts are"


def _named(one: pure.Quiet, slots: Slots) -> str:
    kinds = f", by tokens of {', '.join(one.modalities)}" if one.modalities else ""
    return f"layer {one.layer}, expert {pure.slot_name(slots, one.slot)} ({one.share:.2%}{kinds})"


def _shunned(one: pure.Quiet, slots: Slots) -> str:
    where = f"layer {one.layer}, expert {pure.slot_name(slots, one.slot)}"
    return f"{where} by {', '.join(one.modalities)}"


def maps(load: Loads, slots: Slots, title: str, key: str) -> None:
    """Show a map a modality; of large models one modality at a time."""
    rows = pure.heat_rows(load, slots)
    kinds = pure.modalities_of(load)
    if len(rows) > _CELLS:
        chosen = _one_of(kinds)
        rows = [row for row in rows if row["modality"] == chosen]
    chart(charts.heat(rows), rows, title=title, look_for=_HEAT, key=f"{key}-heat")


def _one_of(kinds: Sequence[str]) -> str | None:
    """Let a person choose a modality. Labels are read as Markdown: only known names become some."""
    known = [name for name in kinds if name in MODALITIES]
    if len(known) < len(kinds):
        st.text(
            f"{len(kinds) - len(known)} modalities that this version does not know are left out."
        )
    if not known:
        return None
    return st.segmented_control(
        "Modality", known, default=known[0], key="modality", bind="query-params", required=True
    )


def over_time(kept: routing.Kept, slots: Slots) -> None:
    """Show loads and entropies of one layer over the steps."""
    steps, load = kept.parts(_PARTS), pure.loads_of(kept.end())
    layers, kinds = pure.layers_of(load), [ALL, *pure.modalities_of(load)]
    left, right = st.columns(2)
    layer = left.selectbox("Layer", layers, key="layer", bind="query-params")
    kind = right.selectbox("Tokens of", kinds, key="tokens", bind="query-params")
    if layer is None or kind is None:
        return
    some = " Not every step was read: the record is long." if kept.is_part else ""
    rows = pure.time_rows(steps, layer, kind, slots)
    of_kind = "all modalities" if kind == ALL else kind
    chart(
        charts.loads(rows),
        rows,
        title=f"Load of layer {layer} over time, {of_kind}: share of visits",
        look_for="Each point joins neighbouring steps. Look for a line that falls to 0 (an expert "
        f"dies) or one that takes all.{some}",
        key="loads-over-time",
    )
    told = pure.entropy_rows(steps, layer)
    chart(
        charts.entropies(told),
        told,
        title=f"Router entropy of layer {layer} over time, share of an even choice's",
        look_for="A fall towards 0 is a collapse: the router no longer chooses. A slow fall is "
        f"specialisation. The axis does not begin at 0.{some}",
        key="entropy-over-time",
    )


def no_routing(run: str) -> None:
    """Say why a run's routing cannot be shown."""
    if not has_folder(run):
        nothing(
            "The folder of this run is not here; the index alone knows the run.",
            "`uni-moe pull` brings folders that were pushed.",
        )
    elif routing.was_removed(run):
        nothing(
            "Housekeeping removed the routing of this run, which is long over.",
            "Its entropies by layer are kept as metrics: see the page Run.",
        )
    else:
        nothing(
            "This run keeps no routing.",
            "Only a training of a mixture (the stage `tune`) writes it; of an old one it may be "
            "gone.",
        )
    link("run", "Metrics of this run", run=run)


def came_from(receipt: Surgery | None, slots: Slots, made: Mapping[str, Made]) -> None:
    """Show the origin of every expert: artifact and run."""
    st.subheader("Where each expert comes from", anchor=False)
    if receipt is None:
        nothing(
            "The receipt beside the weights is not here.",
            "Weights that were removed or kept elsewhere come back with `uni-moe pull`.",
        )
    else:
        layers = f" in layers {', '.join(receipt.layers)}" if receipt.layers else ""
        st.text(f"What was done{layers}, in order: {', then '.join(receipt.operations)}.")
    for slot, name in enumerate(slots):
        origin = made.get(_artifact(name))
        told, artifact, run = st.columns([2, 3, 3], vertical_alignment="center")
        told.text(f"expert {pure.slot_name(slots, slot)}")
        with artifact:
            if origin is None:
                st.text("origin unknown to the index")
            else:
                link("lineage", f"{origin.name}  {short(origin.id)}", artifact=origin.id)
        with run:
            if origin is not None and origin.run is not None:
                link("run", origin.run, run=origin.run)


def _artifact(donor: str) -> str:
    """Return the workspace's name of what gave an expert, by the receipt's name of it."""
    bare = donor.partition("[")[0]
    return "artifacts/foundation/language" if bare == "base" else f"artifacts/experts/{bare}"


def changed(
    made: Mapping[str, Made],
    params: Mapping[str, Any],
    version: Version,
    receipt: Surgery | None,
    slots: Slots,
) -> None:
    """Say what the last training changed of its parent; by how much, the receipt or a command."""
    parent = made.get("artifacts/assembled")
    learns = (params.get("tune") or {}).get("learns") or ()
    st.subheader("What changed since the parent", anchor=False)
    if learns:
        experts = "experts" if "lora.experts" in learns else "no expert"
        router = "routers" if "router" in learns else "no router"
        st.text(
            f"The stage tune changed {experts} and {router} of every sparse layer; it learned "
            f"{', '.join(map(str, learns))} in {(params.get('tune') or {}).get('steps')} steps."
        )
    else:
        st.text("Its card does not say what the training changed.")
    if receipt is not None and receipt.moved:
        st.caption("The norm of what the adapter that was merged last changed of each expert:")
        st.dataframe(
            [
                {"layer": layer}
                | {pure.slot_name(slots, slot): norm for slot, norm in enumerate(norms)}
                for layer, norms in receipt.moved.items()
            ],
            hide_index=True,
            key="moved",
            width="content",
            alt="How much each expert changed, by layer: the norm of its difference.",
        )
    elif parent is not None:
        st.caption("By how much each expert moved, this command tells:")
        st.code(f"uni-moe diff {parent.id[:12]} {version.number}", language=None)


def knocked_out(told: EvalReport, slots: Slots) -> None:
    """Show what the absence of each expert costs, where that was measured."""
    rows = [
        {
            "modality": kind,
            "layer": layer,
            "expert": pure.slot_name(slots, slot),
            "points": 100 * drop if math.isfinite(drop) else None,
        }
        for kind in pure.modalities_of(told.knock_out)
        for layer in pure.layers_of({kind: told.knock_out[kind]})
        for slot, drop in enumerate(told.knock_out[kind][layer])
    ]
    if rows:
        chart(
            charts.knock_outs(rows),
            rows,
            title="Knock-outs: right answers lost without an expert, points of 100",
            look_for="Each cell is a model without that expert in that layer. Look for large "
            "losses: the modality depends on the expert. Below 0 the model is better without it.",
            key="knock-outs",
        )
