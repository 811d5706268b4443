"""A dashboard that serves, Debian's Chromium before it, and workspaces that files share."""

import shutil
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner

from benchmarks.browser import CHROMIUM, chromium, free_port, served
from dashboard.serving import command
from tests.dashboard.registered import of_many, of_one
from tests.unit.registry import data_workspace
from uni_moe.artifacts import Layout
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register


@pytest.fixture(scope="session", autouse=True)
def _packages_are_scanned_once():
    """Streamlit looks through all installed packages for components whenever a page is opened.

    That takes half a second, more than most pages; what is installed does not change meanwhile.
    """
    with pytest.MonkeyPatch.context() as patch:
        scan = cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """Versions that were promoted, refused, waived, rolled back and forgotten; only to be read."""
    return of_many(tmp_path_factory.mktemp("many"))


@pytest.fixture(scope="session")
def _one(tmp_path_factory):
    return of_one(tmp_path_factory.mktemp("one"))


@pytest.fixture
def one_version(_one, tmp_path):
    """A workspace whose only version is live; the test's own, in a folder of its own."""
    return Layout(shutil.copytree(_one.root, tmp_path / "one"))


@pytest.fixture
def many_to_spoil(many, tmp_path):
    """A copy of `many`."""
    return Layout(shutil.copytree(many.root, tmp_path / "many"))


@pytest.fixture(scope="session")
def two_versions(tmp_path_factory):
    """Two versions: the second learned from one sample less, and is the champion; to be read."""
    made = Layout(tmp_path_factory.mktemp("two"))
    data_workspace.registered(made)
    data_workspace.ingest(made, "image", data_workspace.pictures()[1:])
    data_workspace.judge_data(made)
    data_workspace.train(made, seen=("mine/2",), params={"rate": 2})
    data_workspace.judge(made, 0.9)
    known = register(made, reason="better", who="ada", flow_run="2")
    promote_if_better(made, known, data_workspace.RULES, reason="better", flow_run="2")
    return made


@pytest.fixture(scope="module")
def browser():
    """Chromium, for the walks of a file: while its driver lives, this process has no other loop."""
    if not CHROMIUM.is_file():
        pytest.skip("no Chromium: `apt-get install chromium`")
    with chromium() as started:
        yield started


@contextmanager
def serving(workspace, environment=None, script=None):
    """Serve a workspace's dashboard, or another script as it is served; give its address."""
    with serving_one(workspace, environment, script) as server:
        yield server.address


@contextmanager
def serving_one(workspace, environment=None, script=None):
    """Serve as `serving` does; give the server, whose memory can be asked for."""
    port = free_port()
    words = command(Path(workspace), port=port)
    if script is not None:
        words[words.index("--") - 1] = str(script)
    with served(words, port, "/_stcore/health", environment) as server:
        yield server
