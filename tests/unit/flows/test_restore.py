"""A version comes back as it was, whatever its workspace holds by now."""

from contextlib import chdir

import pytest

from flows.restore import at_our_code, restore
from tests.integration.little_home import environment, make_home, new_data
from tests.stores.workspace import commit
from tests.unit.registry.workspace import RULES, candidate
from uni_moe.artifacts import verified_card
from uni_moe.errors import ConfigError, LineageError
from uni_moe.registry.graphs import keep_graph
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register
from uni_moe.workspace import PACKAGE


def silent(_line):
    pass


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return make_home(tmp_path / "home")


def version(home, weights, *, keep=True):
    new_data(home.root, weights, 0.7)
    candidate(home, weights, 0.7)
    commit(home)
    made = register(home, reason=weights, who="ada")
    promote_if_better(home, made, RULES)
    if keep:
        keep_graph(home)
    return made


def status(root):
    from dvc.repo import Repo

    with chdir(root), Repo() as repo:
        return repo.status()


def test_an_earlier_version_comes_back_with_its_params_data_and_weights(home, tmp_path):
    first = version(home, "a")
    params = home.params.read_bytes()
    home.params.write_bytes(params.replace(b"seed: 7", b"seed: 8"))
    version(home, "b")
    new_data(home.root, "a", 0.7)
    done = restore(home, "1", tmp_path / "back", silent)
    assert done.stale == ()
    assert status(done.folder) == {}
    assert (done.folder / "params.yaml").read_bytes() == params
    assert verified_card(done.folder / "artifacts/model").id == first.model
    assert verified_card(done.folder / "artifacts/report").id == first.report
    assert done.artifacts == 6


def test_a_workspace_that_holds_something_is_left_alone(home, tmp_path):
    version(home, "a")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(ConfigError, match="not empty"):
        restore(home, None, tmp_path / "full", silent)
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine"]


def test_a_version_of_which_nothing_was_kept_is_told(home, tmp_path):
    version(home, "a", keep=False)
    with pytest.raises(LineageError, match="made by is not kept"):
        restore(home, None, tmp_path / "back", silent)
    assert not (tmp_path / "back").exists()


def graph_of(place, *, in_a_variable):
    head, listed = (f"vars:\n  - code: {place}\n\n", "${code}") if in_a_variable else ("", place)
    files = f"      - {listed}/data/x.py\n      - {listed}/stage.py\n"
    graph = f"{head}stages:\n  a:\n    deps:\n      - artifacts/uni_moe\n{files}"
    paths = ("artifacts/uni_moe", f"{place}/data/x.py", f"{place}/stage.py")
    return graph, "".join(f"- path: {path}\n" for path in paths)


@pytest.mark.parametrize("place", ["uni_moe", "/elsewhere/uni_moe"])
@pytest.mark.parametrize("in_a_variable", [True, False])
def test_code_is_named_where_it_lies_here(place, in_a_variable):
    before = graph_of(place, in_a_variable=in_a_variable)
    assert at_our_code(*before) == graph_of(PACKAGE, in_a_variable=in_a_variable)


def test_a_graph_without_code_stays():
    assert at_our_code("stages: {}\n", "- path: x/y.py\n") == ("stages: {}\n", "- path: x/y.py\n")
