"""Every stage on the smallest road, given nothing but the params that dvc.yaml says it reads."""

import copy
import importlib
import shutil
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace

import pytest
import yaml

from tests.house.code_deps import GRAPH, ROOT
from uni_moe.artifacts import Layout
from uni_moe.cli import STAGES
from uni_moe.config import Params, parse_params
from uni_moe.runs import start_run
from uni_moe.stage import StageContext


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


def smallest_params():
    """Return the smoke recipe with one step everywhere and a handful of samples."""
    data = yaml.safe_load((ROOT / "uni_moe/recipes/smoke.yaml").read_text())
    data["sources"][0] |= {
        "train": {"text": 40, "image": 6, "video": 4, "audio": 4, "speech": 6},
        "validation": 1,
        "test": 2,
    }
    trainings = [part["tiny"] for part in data["foundation"].values()]
    phases = [*data["align"].values(), *data["experts"].values(), data["tune"]]
    for plan in (*trainings, *phases):
        plan |= {"steps": 1, "batch_size": 2}
    data["evaluate"] |= {"max_new_tokens": 2, "max_items": 2, "knock_out_items": 1}
    return parse_params(data)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Run every stage with undeclared params hidden; return the sections that each asked for."""
    root = tmp_path_factory.mktemp("declared")
    (root / "data").mkdir()
    shutil.copytree(ROOT / "data_contracts", root / "data_contracts")
    layout, whole, asked = Layout(root), smallest_params(), {}
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
    return asked


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
    whole = smallest_params()
    shown = hidden(whole, "", {"align.audio", "model.system_prompt", "seed"})
    assert (shown.seed, shown.model.system_prompt) == (whole.seed, "")
    assert shown.align["audio"] == whole.align["audio"]
    for value in (shown.align["image"].steps, shown.model.video_frames, shown.sources):
        assert type(value) is Undeclared
