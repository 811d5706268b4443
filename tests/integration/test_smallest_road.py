"""Every stage on the smallest road, given nothing but the params that dvc.yaml says it reads.

What the training stages leave is held to the files that they started from, weight by weight.
"""

import copy
import importlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from benchmarks.kills import smallest
from tests.house.code_deps import GRAPH, ROOT
from tests.house.test_graph import data_edges
from uni_moe.artifacts import CARD, Layout, read_card, verified_card
from uni_moe.cli_stages import STAGES
from uni_moe.config import Params, parse_params
from uni_moe.data.exposures import find, ledger_of
from uni_moe.data.kept_features import kept_features
from uni_moe.errors import LineageError
from uni_moe.machine import FeatureCacheSettings, Machine
from uni_moe.records import MEDIA_KINDS
from uni_moe.registry.asked import Asked
from uni_moe.registry.impact import impact
from uni_moe.registry.indexing import rebuild
from uni_moe.registry.write import register
from uni_moe.runs import start_run
from uni_moe.stage import StageContext
from uni_moe.storage.blobs import LocalFolder


class Undeclared:
    """Stands where a stage has no business: whatever is done with it fails."""

    def __init__(self, name):
        object.__setattr__(self, "name", name)

    def _refuse(self, *_):
        raise AssertionError(f"{object.__getattribute__(self, 'name')} is read, not declared")

    __getattribute__ = __getitem__ = __iter__ = __len__ = __bool__ = __eq__ = _refuse
    __index__ = __int__ = __float__ = __str__ = __repr__ = __lt__ = __gt__ = __hash__ = _refuse


def hidden(value, name, declared):
    """Return params with every value outside the declared sections made unusable.

    Names stay: which connectors and experts there are is fixed by dvc.yaml.
    """
    if any(name == one or name.startswith(f"{one}.") for one in declared):
        return value
    inside = f"{name}." if name else ""
    if is_dataclass(value):
        parts = {f.name: getattr(value, f.name) for f in fields(value)}
        return replace(value, **{k: hidden(v, inside + k, declared) for k, v in parts.items()})
    if isinstance(value, Mapping):
        return {k: hidden(v, f"{inside}{k}", declared) for k, v in value.items()}
    return Undeclared(name)


class Watched(Params):
    """Params that remember which sections were asked for."""

    def __getattribute__(self, name):
        if name in Params.__dataclass_fields__:
            object.__getattribute__(self, "__dict__").setdefault("asked", set()).add(name)
        return object.__getattribute__(self, name)


def declared_params():
    """Return stage -> the sections that dvc.yaml declares for it, in an order that can run."""
    found = {}
    for name, stage in yaml.safe_load(GRAPH.read_text())["stages"].items():
        items = stage.get("foreach", {"": {}})
        for item in items:
            spec = items[item] if isinstance(items, dict) else {}
            fill = {"${item}": item, "${key}": item}
            fill |= {f"${{item.{key}}}": value for key, value in (spec or {}).items()}
            sections = []
            for section in stage.get("do", stage).get("params", []):
                for mark, value in fill.items():
                    section = section.replace(mark, value)
                sections.append(section)
            found[f"{name}@{item}" if item else name] = set(sections)
    return found


LOSSES = {
    "balance": 0.01,
    "target": 0.1,
    "divergence": 0.1,
    "expert_targets": {"image": [1], "video": [2], "audio": [3], "speech": [4, 0]},
}


def smallest_data():
    """Return the smoke recipe with one step everywhere, few samples, and every part that learns."""
    data = smallest(yaml.safe_load((ROOT / "uni_moe/recipes/smoke.yaml").read_text()))
    trainings = [part["tiny"] for part in data["foundation"].values()]
    phases = [*data["align"].values(), *data["experts"].values(), data["tune"]]
    for plan in (*trainings, *phases):
        plan["steps"] = 1
    data["model"]["sparse_layers"] = "interval"
    data["assembly"] |= {"modality_adapters": True, "connectors_from": {"speech": "speech"}}
    data["experts"]["speech"]["learns"] = ["lora.feed_forward", "projection.speech"]
    data["tune"]["learns"][-2:] = ["projection.audio", "connector.speech", "modality_adapters"]
    data["tune"] |= {"losses": LOSSES, "batch_size": 8}
    return data


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """Run every stage with undeclared params hidden; note the sections that each asked for."""
    root = tmp_path_factory.mktemp("declared")
    (root / "data").mkdir()
    shutil.copytree(ROOT / "data_contracts", root / "data_contracts")
    layout, whole, asked = Layout(root), parse_params(smallest_data()), {}
    for stage, sections in declared_params().items():
        module, _, function = STAGES[stage.partition("@")[0]][0].partition(":")
        shown = hidden(whole, "", sections)
        params = Watched(**{f.name: getattr(shown, f.name) for f in fields(shown)})
        params.__dict__.pop("asked", None)
        with start_run(layout, stage, {}) as run:
            getattr(importlib.import_module(module), function)(
                StageContext(stage, layout, params, run)
            )
        asked[stage] = params.__dict__.get("asked", set())
    return layout, asked


@pytest.fixture
def read(road):
    return road[1]


@pytest.fixture
def layout(road):
    return road[0]


def test_no_stage_reads_params_that_it_does_not_declare(read):
    assert read.keys() == declared_params().keys()


def test_no_stage_declares_params_that_it_does_not_read(read):
    declared = {stage: {s.partition(".")[0] for s in of} for stage, of in declared_params().items()}
    declared["ingest"] -= {"raw"}  # dvc.yaml reads it: the folder that ingest depends on
    assert {stage: names - read[stage] for stage, names in declared.items()} == {
        stage: set() for stage in declared
    }


@pytest.mark.parametrize("use", [str, int, float, bool, len, list, hash, vars, copy.deepcopy])
def test_what_is_hidden_cannot_be_used(use):
    with pytest.raises(AssertionError, match="seed is read"):
        use(Undeclared("seed"))


def test_values_outside_the_declared_sections_are_hidden():
    whole = parse_params(smallest_data())
    shown = hidden(whole, "", {"align.audio", "model.system_prompt", "seed"})
    assert (shown.seed, shown.model.system_prompt) == (whole.seed, "")
    assert shown.align["audio"] == whole.align["audio"]
    for value in (shown.align["image"].steps, shown.model.video_frames, shown.sources):
        assert type(value) is Undeclared


LANGUAGE = "language_model."
SPARSE = (0, 2)
PARTS = ("gate", "up", "down")


def weights(folder, name="model"):
    return load_file(folder / f"{name}.safetensors")


def test_an_aligned_connector_is_alone_in_its_file_and_has_learned(layout):
    assembled = weights(layout.assembled)
    for connector in ("image", "audio", "speech"):
        aligned = weights(layout.aligned(connector), "connector")
        start = f"{connector}_connector."
        assert {n for n in assembled if n.startswith(start)} == set(aligned)
        trained_on = {n for n, t in aligned.items() if not torch.equal(assembled[n], t)}
        learned = connector == "speech"  # with its expert, as the params say
        assert trained_on == {f"{start}projector.{n}" for n in ("weight", "bias") if learned}
    assert weights(layout.aligned("speech"), "connector")["speech_connector.query_tokens"].any()


def test_a_projection_that_learns_with_an_expert_survives_with_it(layout):
    donor = weights(layout.expert("speech"), "speech.connector")
    assembled = weights(layout.assembled)
    assert all(torch.equal(assembled[name], tensor) for name, tensor in donor.items())


def feed_forward(layer, part):
    return f"model.layers.{layer}.mlp.{part}_proj.weight"


def test_an_expert_is_the_foundation_and_its_scaled_adapters(layout):
    base = weights(layout.foundation("language"))
    for name in ("image", "video", "audio", "speech"):
        expert = weights(layout.expert(name), "expert")
        adapter = weights(layout.expert(name), "adapter/adapter_model")
        assert len(expert) == len(SPARSE) * len(PARTS)
        assert len(adapter) == 2 * len(expert)
        for layer in SPARSE:
            for part in PARTS:
                place = feed_forward(layer, part)
                pair = f"base_model.model.{LANGUAGE}{place.removesuffix('.weight')}.lora_"
                b, a = adapter[f"{pair}B.weight"], adapter[f"{pair}A.weight"]
                assert b.any()
                torch.testing.assert_close(expert[LANGUAGE + place], base[place] + 16 / 8 * b @ a)


def test_the_mixture_holds_its_donors_in_the_order_of_its_slots(layout):
    base = weights(layout.foundation("language"))
    donors = [{LANGUAGE + name: tensor for name, tensor in base.items()}]
    donors += [weights(layout.expert(n), "expert") for n in ("image", "video", "audio", "speech")]
    assembled = weights(layout.assembled)
    for layer in SPARSE:
        experts = f"{LANGUAGE}model.layers.{layer}.mlp.experts"
        for slot, donor in enumerate(donors):
            gate, up, down = (donor[LANGUAGE + feed_forward(layer, part)] for part in PARTS)
            packed = assembled[f"{experts}.gate_up_proj"][slot]
            assert torch.equal(packed, torch.cat([gate, up]))
            assert torch.equal(assembled[f"{experts}.down_proj"][slot], down)
    routers = [f"{LANGUAGE}model.layers.{layer}.mlp.router.weight" for layer in SPARSE]
    assert not torch.equal(assembled[routers[0]], assembled[routers[1]])
    for name, tensor in base.items():
        if not any(name == feed_forward(layer, part) for layer in SPARSE for part in PARTS):
            assert torch.equal(assembled[LANGUAGE + name], tensor), name


def test_tuning_changes_the_parts_that_learn_and_no_other(layout):
    before, after = weights(layout.assembled), weights(layout.model)
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    learning = ("self_attn.", "mlp.experts.", "mlp.router.", "mlp.adapters.", "_connector.")
    assert all(any(part in name for part in learning) for name in changed)
    for part in learning:
        assert any(part in name for name in changed), part
    of_sound = {name for name in changed if name.startswith("audio_connector.")}
    assert of_sound == {"audio_connector.projector.weight", "audio_connector.projector.bias"}


def test_losses_of_the_routing_are_logged_and_the_model_remembers_them(layout):
    (run,) = [folder for folder in layout.runs.iterdir() if "tune" in folder.name]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    beside = {f"auxiliary/{name}" for name in ("balance", "target", "divergence")}
    assert all(beside <= set(row) and min(row[name] for name in beside) > 0 for row in rows)
    config = json.loads((layout.model / "config.json").read_text())
    assert config["expert_targets"] == LOSSES["expert_targets"]
    assert config["balance_coefficient"] == LOSSES["balance"]
    assert config["modality_adapters"]


def test_a_tuned_attention_is_the_assembled_one_and_its_scaled_adapters(layout):
    before, after = weights(layout.assembled), weights(layout.model)
    adapter = weights(layout.model, "adapter/adapter_model")
    for layer in range(4):
        for part in "qkvo":
            name = f"{LANGUAGE}model.layers.{layer}.self_attn.{part}_proj"
            a, b = (adapter[f"base_model.model.{name}.lora_{one}.weight"] for one in "AB")
            by_hand = before[f"{name}.weight"] + 16 / 8 * b @ a
            torch.testing.assert_close(after[f"{name}.weight"], by_hand)


def test_encoders_are_the_foundations_to_the_end(layout):
    model = weights(layout.model)
    towers = {"image": "vision_tower", "audio": "audio_tower", "speech": "speech_tower"}
    for part, tower in towers.items():
        for name, tensor in weights(layout.foundation(part)).items():
            assert torch.equal(model[f"{tower}.{name}"], tensor), name


def test_an_artifacts_parents_are_what_dvc_watches_for_its_stage(layout):
    """A folder whose card alone is watched is no parent: it is read to check, not to use."""
    watched, _ = data_edges()
    folders = {layout.name_of(card.parent): card.parent for card in layout.artifacts.rglob(CARD)}
    ids = {name: verified_card(folder).id for name, folder in folders.items()}
    for name, folder in folders.items():
        card = read_card(folder)
        inputs = {path for path in watched[card.stage] if not path.endswith(CARD)}
        if card.stage == "validate":  # each modality's verdict is of its own samples
            inputs &= set(card.parents)
        assert card.parents == {parent: ids[parent] for parent in inputs}, name


def told_of_features(layout, stage):
    """Return what the runs of a stage told of its features, in the order of time."""
    files = layout.runs.glob(f"*-{stage.replace('@', '-')}-*/events.jsonl")
    events = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    told = [event for event in events if event["event"] == "features"]
    return sorted(told, key=lambda event: event["time"])


ALIGNED = tuple(f"align@{name}" for name in ("image", "audio", "speech"))
SEEING = (*ALIGNED, *(f"experts@{name}" for name in MEDIA_KINDS), "tune", "evaluate")


def test_stages_share_what_their_encoders_saw(layout):
    told = {stage: told_of_features(layout, stage)[0] for stage in SEEING}
    encoded = sum(one.get("encoded", 0) for one in told.values())
    kept = kept_features(layout.state / "features")
    assert encoded == sum(one.media for one in kept) > 0
    assert sorted(one.kind for one in kept) == sorted(MEDIA_KINDS)
    assert told["tune"]["read"] > told["tune"].get("encoded", 0)  # it draws media new to all, too


def run_again(layout, stage, *caches):
    """Run a stage once with each of these settings, whose bytes must be those of before."""
    name, _, item = stage.partition("@")
    places = {"align": layout.aligned, "experts": layout.expert}
    target = places[name](item) if item else {"tune": layout.model, "evaluate": layout.report}[name]
    before = read_card(target)
    module, _, function = STAGES[name][0].partition(":")
    for settings in caches:
        with start_run(layout, stage, {}) as run:
            getattr(importlib.import_module(module), function)(
                StageContext(
                    stage, layout, parse_params(smallest_data()), run, Machine(features=settings)
                )
            )
        after = read_card(target)
        assert (after.files, after.results) == (before.files, before.results)
    return told_of_features(layout, stage)[-len(caches) :]


@pytest.fixture
def again(layout, tmp_path):
    """Return a workspace of the test's own, to run stages in."""
    return Layout(shutil.copytree(layout.root, tmp_path / "copy"))


@pytest.mark.parametrize("stage", ["align@image", "experts@speech", "tune"])
def test_a_stage_makes_the_same_bytes_whether_features_are_kept_or_computed(again, stage):
    off = FeatureCacheSettings(**dict.fromkeys(MEDIA_KINDS, False))
    warm, computed = run_again(again, stage, FeatureCacheSettings(), off)
    assert (warm.get("encoded", 0), computed.get("read", 0)) == (0, 0)
    assert warm["read"] == computed["encoded"] > 0


def test_a_model_that_is_judged_again_is_shown_kept_features(again):
    (warm,) = run_again(again, "evaluate", FeatureCacheSettings())
    assert warm.get("encoded", 0) == 0
    assert warm["read"] > 0


def run_stage(layout, stage, data):
    module, _, function = STAGES[stage][0].partition(":")
    with start_run(layout, stage, {}) as run:
        getattr(importlib.import_module(module), function)(
            StageContext(stage, layout, parse_params(data), run)
        )


def test_tuning_goes_on_from_a_registered_model_and_its_card_says_so(again):
    first = read_card(again.model).id
    LocalFolder(again.store).put_folder(f"{first}/model", again.model)
    data = smallest_data()
    data["tune"] |= {"start": first, "steps": 2}
    before = weights(again.model)
    shutil.rmtree(again.artifacts / "assembled")  # of no use here
    run_stage(again, "tune", data)
    card, after = verified_card(again.model), weights(again.model)
    assert card.parents[f"store/{first}/model"] == first
    assert "artifacts/assembled" not in card.parents
    assert card.params["tune"]["start"] == first
    changed = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert changed
    learning = ("self_attn.", "mlp.experts.", "mlp.router.", "mlp.adapters.", "_connector.")
    assert all(any(part in name for part in learning) for name in changed)
    receipt = json.loads((again.model / "receipt.json").read_text())
    assert receipt["earlier"]["operation"] == {"name": "tune"}
    run_stage(again, "evaluate", data)
    assert verified_card(again.report).parents["artifacts/model"] == card.id


def test_a_model_that_is_not_here_is_no_beginning(again):
    data = smallest_data()
    data["tune"]["start"] = "0" * 64
    with pytest.raises(LineageError, match="cannot begin with the model 000000000000"):
        run_stage(again, "tune", data)


def test_a_registered_road_says_what_a_sample_is_in_as_its_ledgers_do(again, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    ledgers = {again.name_of(f.parent): f.parent for f in again.artifacts.rglob("ledger.parquet")}
    first = next(iter(ledger_of(again.expert("image"))))
    key = first.key.removesuffix("#caption")
    by_hand = {name: sum(1 for _ in find(folder, key)) for name, folder in ledgers.items()}
    register(again, reason="a test", who="ada", flow_run="1")
    before = impact(again, Asked((key,)))
    drawn = {one.name: one.draws.draws for one in before.touched if one.how == "learned"}
    assert drawn == {name: count for name, count in by_hand.items() if count}
    assert drawn["artifacts/experts/image"] >= 1
    assert before.versions == (1,)
    (here,) = before.again
    assert {"ingest", "experts@image", "assemble", "tune", "evaluate"} <= set(here.run)
    assert "experts@audio" in here.stay
    shutil.rmtree(again.artifacts)
    rebuild(again)
    after = impact(again, Asked((key,)))
    assert {one.name: one.draws for one in after.touched if one.draws} == {
        one.name: one.draws for one in before.touched if one.draws
    }
    assert after.versions == (1,)
