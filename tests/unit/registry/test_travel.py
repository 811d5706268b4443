"""What a workspace keeps travels to a store and back: records first, once, and nothing wrong."""

import json
import secrets

import pytest

from tests.stores.servers import moto
from tests.stores.workspace import commit, empty_workspace, register_one, registered_workspace
from tests.unit.registry.workspace import judge, tables, write_run
from uni_moe.artifacts import Layout, read_card, verified_card
from uni_moe.errors import LineageError
from uni_moe.registry import read, travel
from uni_moe.registry.indexing import index
from uni_moe.registry.travel import fetch_lock, fetch_model, fetch_records, parcels, size_text
from uni_moe.registry.write import register
from uni_moe.storage.blobs import LocalFolder
from uni_moe.storage.sums import sums_of, sums_text


def silent(_line):
    """Hear nothing."""


def send(layout, store, say, **options):
    return travel.send(layout, store, say, **{"settled": True} | options)


@pytest.fixture(autouse=True)
def own_database(monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)


@pytest.fixture
def layout(tmp_path) -> Layout:
    return registered_workspace(tmp_path / "here")


@pytest.fixture
def store(tmp_path) -> LocalFolder:
    return LocalFolder(tmp_path / "remote")


def arrived(store, root) -> Layout:
    """Return another machine's workspace with everything that a store keeps."""
    there = empty_workspace(root)
    fetch_records(there, store, silent)
    index(there)
    for version in read.models(there):
        fetch_model(there, store, version, silent)
    fetch_lock(there, store, read.find(there, None), silent)
    return there


def test_records_go_before_models_and_small_ones_before_large(layout):
    register_one(layout, "b" * 1000, 0.8)
    going = parcels(layout, settled=True)
    weighs = [(one.key.endswith("/model"), one.size_bytes) for one in going]
    assert weighs == sorted(weighs)
    assert [one.key.endswith("/model") for one in going].count(True) == 2
    assert all(one.size_bytes > 0 for one in going)


def test_everything_is_sent_once(layout, store):
    told = []
    assert send(layout, store, told.append) == len(parcels(layout, settled=True))
    kept = {key for key in store.keys() if not key.startswith("audit/")}  # noqa: SIM118
    assert kept == {one.key for one in parcels(layout, settled=True)}
    assert told[-1].startswith(f"sending {len(told)} of {len(told)}: ")
    assert send(layout, store, silent) == 0
    write_run(layout, "late", status="done")
    assert send(layout, store, silent) == 1


def test_runs_at_work_wait_for_their_end(layout, store):
    write_run(layout, "at-work")
    send(layout, store, silent)
    assert not store.has("runs/at-work")


@pytest.mark.parametrize("name", ["registration.json", "verdict.json"])
def test_what_a_run_decided_before_it_died_is_sent(layout, store, name):
    folder = next(layout.runs.glob(f"*/{name}")).parent
    record = json.loads((folder / "run.json").read_text())
    old = {"status": "running", "started": "2020-01-01T00:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps(record | old))
    (folder / "heartbeat.jsonl").unlink()
    write_run(layout, "dead", silent_s=1000)
    send(layout, store, silent)
    assert store.has(f"runs/{folder.name}")
    assert not store.has("runs/dead")


def test_another_machine_has_the_same_registry_and_can_prove_it(layout, store, tmp_path):
    register_one(layout, "b", 0.8)
    commit(layout)
    send(layout, store, silent)
    index(layout)
    there = arrived(store, tmp_path / "there")
    champion = read.champion(there)
    assert champion is not None
    assert champion.model == read.champion(layout).model
    assert verified_card(champion.model_folder).id == champion.model
    ours, theirs = tables(layout), tables(there)
    assert theirs | {"owner": ours["owner"]} == ours
    assert read.lineage(there, None).to_json() == read.lineage(layout, None).to_json()
    assert (there.root / "dvc.lock").read_bytes() == (layout.root / "dvc.lock").read_bytes()
    assert not list(there.state.iterdir())


def test_fetching_again_brings_nothing_and_what_is_here_stays(layout, store, tmp_path):
    send(layout, store, silent)
    there = arrived(store, tmp_path / "there")
    (there.root / "dvc.lock").write_text("mine")
    assert fetch_records(there, store, silent) == 0
    fetch_model(there, store, read.find(there, None), silent)
    fetch_lock(there, store, read.find(there, None), silent)
    assert (there.root / "dvc.lock").read_text() == "mine"


def test_a_second_judgement_travels_with_its_cards(layout, store, tmp_path):
    send(layout, store, silent)
    there = arrived(store, tmp_path / "there")
    judge(layout, 0.9)
    register(layout, reason="again", who="ada")
    again = read_card(layout.report).id
    assert send(layout, store, silent) >= 3  # its registration, its report, the cards
    fetch_records(there, store, silent)
    index(there)
    assert read.find(there, None).report == again
    assert read.lineage(there, None).to_json() == read.lineage(layout, None).to_json()


def test_what_was_made_by_other_params_is_told(layout, store, tmp_path):
    send(layout, store, silent)
    there = empty_workspace(tmp_path / "there")
    there.params.write_text("seed: 2\n")
    fetch_records(there, store, silent)
    index(there)
    told = []
    fetch_lock(there, store, read.find(there, None), told.append)
    assert any("not the one this model was made by" in line for line in told)
    assert there.params.read_text() == "seed: 2\n"


def test_params_said_in_another_way_are_sent_beside_the_others(layout, store, tmp_path):
    send(layout, store, silent)
    params = layout.params.read_text()
    layout.params.write_text(f"# a word more\n{params}")
    assert send(layout, store, silent, verify=True) > 0
    graphs = [key for key in store.keys() if "/graph-" in key]  # noqa: SIM118 - no dictionary
    assert len(graphs) == 2
    for text in (params, layout.params.read_text()):
        there = empty_workspace(tmp_path / f"there-{len(text)}")
        there.params.write_text(text)
        fetch_records(there, store, silent)
        index(there)
        told = []
        fetch_lock(there, store, read.find(there, None), told.append)
        assert told == ["dvc.lock is the one of version 1"]


def test_a_lock_that_does_not_describe_the_artifacts_stays_here(layout, store):
    send(layout, store, silent, settled=False)
    assert not [key for key in store.keys() if "/graph-" in key]  # noqa: SIM118 - no dictionary


@pytest.mark.parametrize("name", ["model/content.bin", "model.sha256"])
def test_what_is_wrong_in_the_store_is_found_and_sent_again(layout, store, tmp_path, name):
    send(layout, store, silent)
    model = read.find(layout, None).model
    file = store.root / model / name
    file.write_text("flipped" + file.read_text())
    with pytest.raises(LineageError):
        arrived(store, tmp_path / "there")
    assert send(layout, store, silent) == 0  # without looking
    told = []
    send(layout, store, told.append, verify=True)
    mended = [line for line in told if "is wrong in the store" in line]
    assert mended == [f"  {model}/model is wrong in the store; it is sent again"]
    assert store.wrong(f"{model}/model") == []
    arrived(store, tmp_path / "later")


@pytest.mark.parametrize("key", ["{outside}", "model/cards", "{model}/cards", "runs/.hidden"])
def test_what_a_stranger_put_into_a_bucket_is_not_fetched(layout, tmp_path, key):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    (tmp_path / "theirs").mkdir()
    key = key.format(outside=outside, model=read.find(layout, None).model)
    sums = sums_text(sums_of(tmp_path / "theirs"))
    with moto() as server:
        store = server.bucket(f"s3://uni-moe-tests/{secrets.token_hex(8)}")
        send(layout, store, silent)
        store.put(f"{key}.sha256", sums.encode())
        there = empty_workspace(tmp_path / "there")
        with pytest.raises(LineageError, match="nothing of ours"):
            fetch_records(there, store, silent)
    assert (outside / "mine").read_text() == "mine"
    assert not there.store.exists()


def test_a_copy_is_not_given_up_for_ours_that_is_spoilt_too(layout, store):
    send(layout, store, silent)
    model = read.find(layout, None)
    there = store.root / model.model / "model"
    whole = {file.name: file.read_bytes() for file in there.iterdir()}
    (there / "content.bin").write_text("flipped there")
    (model.model_folder / "content.bin").write_text("flipped here")
    with pytest.raises(LineageError, match=r"content\.bin"):
        send(layout, store, silent, verify=True)
    assert store.has(f"{model.model}/model")
    assert {file.name for file in there.iterdir()} == whole.keys()


def test_a_spoilt_copy_of_other_content_is_not_written_over(layout, store):
    send(layout, store, silent)
    record = next(layout.runs.glob("*/registration.json"))
    kept = store.root / "runs" / record.parent.name
    (kept / "run.json").write_text("spoilt")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"who": "eve"}))
    with pytest.raises(LineageError, match="other content"):
        send(layout, store, silent, verify=True)
    assert json.loads((kept / record.name).read_text())["who"] == "ada"


def test_other_content_is_never_written_over(layout, store):
    send(layout, store, silent)
    record = next(layout.runs.glob("*/registration.json"))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"who": "eve"}))
    with pytest.raises(LineageError, match="other content"):
        send(layout, store, silent, verify=True)


def test_a_model_spoilt_here_is_not_sent(layout, store):
    model = read.find(layout, None)
    (model.model_folder / "content.bin").write_text("flipped")
    with pytest.raises(LineageError, match=r"content\.bin"):
        send(layout, store, silent)
    assert not store.has(f"{model.model}/model")


@pytest.mark.parametrize(
    "size, text", [(0, "0 bytes"), (99_999, "99999 bytes"), (1_234_567, "1.2 MB")]
)
def test_sizes_are_told_in_words(size, text):
    assert size_text(size) == text
