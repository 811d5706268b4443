"""Slurm starts the ranks: its real controller and two real nodes, on loopback."""

import os

import pytest

from tests.integration.ranks import events, made_for_tune, tuned, two_nodes
from tests.integration.slurm import cluster, missing
from tests.integration.test_ranks import agree
from tests.integration.test_smallest_road import smallest_data

pytestmark = [
    pytest.mark.operate,
    pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}"),
    pytest.mark.skipif(os.getuid() != 0, reason="its daemons start steps as root alone"),
]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A cluster that srun finds."""
    (tmp_path / "slurm").mkdir()
    with cluster(tmp_path / "slurm") as environment:
        monkeypatch.setenv("SLURM_CONF", environment["SLURM_CONF"])
        yield


@pytest.mark.usefixtures("slurm")
def test_ranks_of_two_slurm_nodes_train_as_one_process(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    root = made_for_tune(work, smallest_data())
    alone = tuned(root)
    agree(tuned(root, **two_nodes(launcher="slurm")), alone)
    assert events(root)["training"]["ranks"] == 2
