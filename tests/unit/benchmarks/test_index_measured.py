"""The index is measured by what it really does, at a small size."""

import sys

import pytest

from benchmarks import points, registry
from benchmarks.mlflow_place import MlflowProcess, mlflow_python
from benchmarks.rounds import OURS
from uni_moe.artifacts import Layout
from uni_moe.errors import ConfigError, StageError
from uni_moe.registry.indexing import index
from uni_moe.registry.read import curve, top_runs
from uni_moe.registry.writer import opened


def test_what_is_filled_is_what_was_asked_for(tmp_path):
    layout = Layout(tmp_path)
    points.write(layout, runs=4, steps=5, long_steps=30, seed=0)
    counts = index(layout)
    assert counts["points"] == 4 * 5 * (points.KEYS + 1) + 2 * 30
    assert len(top_runs(layout, "key-3", 9)) == 4
    assert len(curve(layout, registry.run_name(4), "loss")) == 30
    lines = [*points.filled(layout, counts["points"], 1.0), *points.asked(layout, 2, 5)]
    assert all(line.value > 0 for line in lines)
    assert index(layout)["points"] == counts["points"] + 3 * (points.KEYS + 1)


def test_ours_writes_what_mlflow_is_told(tmp_path):
    layout = Layout(tmp_path)
    with opened(layout) as writer:
        ours = registry.Ours(layout, writer)
        registry.fill(ours, {}, runs=20, seed=0)
        for what in registry.BARS:
            assert registry.OursPlace(ours, what).burst(OURS, 1, 2).seconds > 0
    counts = index(layout)
    assert counts["runs"] == 2 + 20 + 2
    assert counts["points"] == 20 + 2 * 2 + 2 * registry.STEPS * (registry.KEYS + 1)


def test_an_environment_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match="no MLflow to measure beside") as told:
        mlflow_python()
    assert "--mlflow PYTHON" in told.value.remedy


def test_an_interpreter_without_mlflow_is_told(tmp_path):
    process = MlflowProcess(sys.executable, tmp_path / "store.sqlite")
    with pytest.raises(StageError, match="no answer to 'settings'"):
        process.ask("settings")
    process.close()
