"""A version comes back as it was, whatever its workspace holds by now."""

import shutil
from contextlib import chdir

import pytest

from flows.remote import push, set_remote
from flows.restore import at_our_code, restore
from tests.integration.little_home import OUTS, environment, make_home, new_data
from tests.stores.workspace import commit
from tests.unit.registry.workspace import RULES, candidate, judge, make
from uni_moe.artifacts import files_of, verified_card
from uni_moe.cli import main
from uni_moe.errors import ConfigError, LineageError
from uni_moe.registry.graphs import keep_graph
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register
from uni_moe.storage.remote import Remote
from uni_moe.workspace import PACKAGE

INGEST, *LATER = (f"artifacts/{name}" for name in OUTS)
TWO_STAGES = f"""
stages:
  ingest:
    cmd: 'true'
    deps:
      - ${{raw}}
    outs:
      - {INGEST}
  all:
    cmd: 'true'
    params: [seed]
    deps:
      - {INGEST}
    outs:
""" + "".join(f"      - {name}\n" for name in LATER)


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


@pytest.mark.parametrize("raw", ["a", "other"])
def test_a_version_comes_back_from_the_remote_alone_whatever_the_raw_data(home, tmp_path, raw):
    (home.root / "dvc.yaml").write_text(TWO_STAGES)
    set_remote(home.root, Remote(str(tmp_path / "remote")))
    version(home, "a")
    push(home.root, silent)
    there, said = make_home(tmp_path / "there", raw), []
    set_remote(there.root, Remote(str(tmp_path / "remote")))
    done = restore(there, "1", tmp_path / "back", said.append)
    assert done.stale == ()
    assert status(done.folder) == {}
    for name in (INGEST, *LATER):
        ours, theirs = home.root / name, done.folder / name
        assert verified_card(theirs).id == verified_card(ours).id
        assert files_of(theirs) == files_of(ours)
    frozen = "frozen: true" in (done.folder / "dvc.yaml").read_text()
    assert frozen == (raw == "other")
    assert frozen == any("`ingest` is frozen" in line for line in said)


def test_what_no_cache_has_any_more_is_named(home, tmp_path):
    version(home, "a")
    shutil.rmtree(home.root / ".dvc/cache")
    with pytest.raises(LineageError, match="did not come back") as told:
        restore(home, None, tmp_path / "back", silent)
    lacking = [name for name in (INGEST, *LATER) if f"{name} is not there" in str(told.value)]
    assert lacking == [INGEST, *LATER[:-2]]  # the store keeps model and report


def test_an_artifact_that_is_none_of_the_versions_is_named(home, tmp_path):
    version(home, "a", keep=False)
    own = verified_card(home.root / INGEST).id
    make(home, home.root / INGEST, "ingest", "samples", content="others")
    commit(home)
    keep_graph(home)
    with pytest.raises(LineageError, match=rf"{INGEST} came back as .*; it was {own[:12]}"):
        restore(home, None, tmp_path / "back", silent)


def test_a_version_that_was_judged_again_comes_back_with_its_first_report(home, tmp_path):
    first = version(home, "a")
    judge(home, 0.6, items="of another day")
    again = register(home, reason="judged again", who="ada")
    assert (again.model, again.report != first.report) == (first.model, True)
    done = restore(home, "1", tmp_path / "back", silent)
    assert verified_card(done.folder / "artifacts/report").id == first.report


def test_a_restored_stage_that_would_run_again_is_told_and_is_no_success(home, tmp_path, capsys):
    version(home, "a")
    new_data(home.root, "other", 0.7)
    words = ["--workspace", str(home.root), "restore", "1", "--into", str(tmp_path / "back")]
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "it would run again:\n  all: " in said
    assert "clean\n" not in said
