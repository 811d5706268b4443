"""Every page over what is real: a workspace that all stages made, and PostgreSQL as its reader."""

import importlib
import os
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest

from dashboard.site import PLACES
from tests.dashboard.pages import opened, said, sent
from tests.dashboard.run_folders import write_run
from tests.house.code_deps import ROOT
from tests.integration.test_smallest_road import declared_params, smallest_data
from tests.stores.postgres import postgres
from tests.stores.test_team_databases import SCRIPT
from uni_moe.artifacts import Layout
from uni_moe.cli_stages import STAGES
from uni_moe.config import parse_params
from uni_moe.registry import read
from uni_moe.registry.indexing import index
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register
from uni_moe.runs import start_run
from uni_moe.stage import StageContext

pytestmark = pytest.mark.operate


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace in which every stage ran, each with one step; its model is registered."""
    layout = Layout(tmp_path_factory.mktemp("made"))
    (layout.root / "data").mkdir()
    shutil.copytree(ROOT / "data_contracts", layout.root / "data_contracts")
    params = parse_params(smallest_data())
    for stage in declared_params():
        module, _, function = STAGES[stage.partition("@")[0]][0].partition(":")
        with start_run(layout, stage, {}) as run:
            getattr(importlib.import_module(module), function)(
                StageContext(stage, layout, params, run)
            )
    known = register(layout, reason="a first model", who="ada", flow_run="1")
    promote_if_better(layout, known, params.gate, reason="a first model", flow_run="1")
    return layout


@pytest.fixture(scope="module")
def served(two_versions, tmp_path_factory):
    """A workspace whose index is PostgreSQL's alone, and the address of a role that only reads."""
    layout = Layout(shutil.copytree(two_versions.root, tmp_path_factory.mktemp("served") / "two"))
    write_run(layout, "tune", steps=3)
    with postgres() as url, pytest.MonkeyPatch.context() as patch:
        place = urlsplit(url)
        names = ("REGISTRY_PASSWORD", "PREFECT_PASSWORD", "READER_PASSWORD")
        told = {"PGHOST": "127.0.0.1", "PGPORT": str(place.port), "POSTGRES_USER": "moe"}
        told |= dict.fromkeys(names, "a-word")
        environment = {**os.environ, **told}
        subprocess.run(["bash", str(SCRIPT)], env=environment, check=True, capture_output=True)
        at = f"127.0.0.1:{place.port}/uni_moe"
        patch.setenv("UNI_MOE_DATABASE_URL", f"postgresql+psycopg://uni_moe@{at}")
        for file in layout.root.glob("registry.sqlite*"):
            file.unlink()
        index(layout)
        yield layout, f"postgresql+psycopg://uni_moe_reader@{at}"
    assert not layout.registry.exists()


@pytest.mark.parametrize("page", PLACES)
def test_every_page_tells_of_a_workspace_that_all_stages_made(made, monkeypatch, page):
    (tune,) = (one.id for one in read.runs(made) if one.stage == "tune")
    query, texts = asked(1, tune)[page]
    shows(opened(monkeypatch, made.root, page, **query), [*texts, *OF_THE_ROAD.get(page, ())])


@pytest.mark.parametrize("page", PLACES)
def test_every_page_reads_postgresql_as_a_role_that_only_reads(served, monkeypatch, page):
    layout, url = served
    monkeypatch.setattr("tests.dashboard.pages.DATABASE", url)
    (tune,) = (one.name for one in layout.runs.glob("*-tune-*"))
    query, texts = asked(2, tune)[page]
    shows(opened(monkeypatch, layout.root, page, **query), texts)


RUNS = len(declared_params()) + 2  # the registration's and the gate's, too
# What stands on the pages of the road alone: trainings, judged items with media, a receipt.
OF_THE_ROAD = {
    "home": ["Nothing known: runs, cards and the audit log are in order."],
    "runs": [f"{RUNS} of {RUNS} runs"],
    "run": ["Loss by modality or part, nats per token", "events, 0 of them alarms"],
    "experts": [
        "in order: upcycle, then tune.",
        "Knock-outs: right answers lost without an expert",
        "Load of layer 0 over time",
        "uni-moe diff",
    ],
    "data": ["playground"],
    "evaluation": ["film of 0.8 s, 48 x 48 pixels", "key: playground/text-test-00000"],
    "lineage": ["27 above it, 1 below"],
    "models": ["weights: here", "there is no champion yet"],
    "audit": ["The chain is whole: 2 entries"],
    "ask": ["the champion, "],
}


def asked(number, run):
    """Return page -> what its address asks, and what it must tell."""
    return {
        "home": ({}, [f"Version {number} is live", "Right answers by modality"]),
        "runs": ({}, [run]),
        "run": ({"run": run}, ["tune: ✓ done", "Loss, nats per token"]),
        "experts": ({"version": number}, ["What changed since the parent"]),
        "data": ({}, ["Listed samples by source and modality"]),
        "evaluation": ({"version": number}, ["Beside guessing, and whether the media are used"]),
        "lineage": (
            {"artifact": number},
            ["around artifacts/model", "The centre's card"],
        ),
        "models": ({"version": number}, [f"Version {number}: the champion", "Promoted"]),
        "audit": ({}, ["The chain is whole", "promotion"]),
        "ask": ({}, ["the champion, "]),
    }


def shows(app, texts):
    assert not app.exception
    assert not app.error, [one.value for one in app.error]
    shown = f"{said(app)}\n{sent(app)}".replace("\\", "")
    for text in texts:
        assert text in shown, text
