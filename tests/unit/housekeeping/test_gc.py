"""After housekeeping exactly what is reachable remains: here, in a remote folder, in a bucket."""

import json
import os
import random
import re
import secrets
import shutil
import socket
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from flows.housekeeping import do_gc, plan_gc
from flows.remote import pull, push, set_remote
from tests.stores.servers import moto
from tests.stores.workspace import commit, empty_workspace, register_one, registered_workspace
from tests.unit.registry.workspace import write_run
from uni_moe.alone import only_one
from uni_moe.artifacts import Layout, verified_card
from uni_moe.audit import Asked
from uni_moe.audit_evidence import audited
from uni_moe.audit_log import read_log
from uni_moe.errors import LineageError, StageError, StoreError
from uni_moe.machine import Machine, RetentionSettings
from uni_moe.registry import read
from uni_moe.registry.forgetting import forget
from uni_moe.registry.graphs import keep_graph
from uni_moe.storage.objects import Files
from uni_moe.storage.remote import DATA, STORE, Remote, objects_of
from uni_moe.storage.turns import TURNS, at_work

ADA = Asked("ada", "the disk is small")
SHARES = (0.6, 0.5, 0.8, 0.7)  # the first and the third reign


@pytest.fixture(autouse=True)
def own_database(monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture(scope="module")
def server():
    with moto() as served:
        yield served


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace with four versions and their data, all in a remote folder beside it."""
    folder = tmp_path_factory.mktemp("made")
    layout = registered_workspace(folder / "here", "0")
    keep_graph(layout)
    for number, share in enumerate(SHARES[1:], 1):
        register_one(layout, str(number) * 9, share)
        commit(layout)
        keep_graph(layout)
    return folder


@pytest.fixture
def here(made, tmp_path):
    return Layout(shutil.copytree(made / "here", tmp_path / "here"))


def silent(_line):
    """Hear nothing."""


def machine(versions, champions=1, days=0.0):
    return Machine(retention=RetentionSettings(versions, champions, days))


def kept_by_hand(layout, versions, champions):
    """Return the models that stay, by the shares that were registered."""
    wanted = {len(SHARES) - n for n in range(versions)} | set([1, 3][-champions:])
    return {one.model for one in read.models(layout) if one.number in wanted}


def data_by_hand(layout, models, lists):
    """Return the objects that these versions' locks and the workspace's name."""
    locks = [file for one in models for file in layout.store.glob(f"{one}/graph-*/dvc.lock")]
    found = set()
    for file in [*locks, layout.root / "dvc.lock"]:
        for stage in yaml.safe_load(file.read_text())["stages"].values():
            for out in stage["outs"]:
                found.add(out["md5"])
                found |= {entry["md5"] for entry in json.loads(lists[out["md5"]])}
    return {f"files/md5/{md5[:2]}/{md5[2:]}" for md5 in found}


def lists_of(layout):
    cache = layout.root / ".dvc/cache/files/md5"
    return {f.parent.name + f.name: f.read_text() for f in cache.rglob("*.dir")}


def litter(layout, dice):
    """Leave what killed processes leave; return the files."""
    old = time.time() - 90 * 86_400
    draft = f"{dice.getrandbits(128):032x}"
    model = read.models(layout)[0].model
    left = [
        layout.store / model / f".model.{draft}" / "weights",
        layout.store / f"{dice.getrandbits(256):064x}" / "report-1" / "report.json",
        layout.store / f"..workspace.{draft}",
        layout.artifacts / f".model.{draft}" / "content.bin",
        layout.state / "fetched-x1" / "it" / "run.json",
        layout.state / "judged" / "abc" / "report.json",
        layout.state / f"tune-{draft[:16]}" / "step-00000005" / "state.json",
        layout.root / ".dvc/cache/files/md5/aa" / ("b" * 30),
        layout.root / ".dvc/cache/files/md5/aa" / ".x.tmp",
    ]
    chosen = [file for file in left if dice.random() < 0.8]
    for file in chosen:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"left over")
        os.utime(file, (old, old))
    return set(chosen)


def files(root):
    """Return what gc may touch, with its bytes; locks, the index and the log may change."""
    skipped = ("registry.sqlite", "audit.jsonl", ".lock", "tmp/", "tombstones/")
    names = {name: (root / name) for name in Files(root).objects()}
    return {
        file
        for name, file in names.items()
        if not any(part in name for part in skipped) and not name.startswith("state/sent-")
    }


LONG = pytest.mark.operate


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=LONG) for seed in range(1, 12))])
def test_exactly_what_is_reachable_remains_here(here, seed):
    dice = random.Random(seed)
    versions, champions = dice.randrange(3), dice.randrange(1, 3)
    lists = lists_of(here)
    before = files(here.root)
    left = litter(here, dice)
    kept = kept_by_hand(here, versions, champions)
    named = data_by_hand(here, kept, lists)
    cache = here.root / ".dvc" / "cache"
    for file in before:
        name = file.relative_to(here.root).as_posix()
        if re.match(r"store/[0-9a-f]{64}/model", name) and name.split("/")[1] not in kept:
            left.add(file)
        if file.is_relative_to(cache / "files") and file.relative_to(cache).as_posix() not in named:
            left.add(file)
        if file.is_relative_to(cache / "runs"):
            outs = [one["md5"] for one in yaml.safe_load(file.read_text())["outs"]]
            if not {f"files/md5/{md5[:2]}/{md5[2:]}" for md5 in outs} <= named:
                left.add(file)
    told = plan_gc(here.root, machine(versions, champions), remote=False)
    assert files(here.root) == before | left
    done = do_gc(here.root, machine(versions, champions), ADA, remote=False)
    assert [one.name for one in done.goes] == [one.name for one in told.goes]
    assert done.size_bytes == told.size_bytes
    assert files(here.root) == before - left
    assert audited(here).problems == ()
    assert verified_card(read.champion(here).model_folder).id == read.champion(here).model
    assert do_gc(here.root, machine(versions, champions), ADA, remote=False).goes == ()


def remote_of(request, tmp_path, kind):
    if kind == "folder":
        return Remote(str(tmp_path / "nas"))
    url = f"s3://uni-moe-tests/{secrets.token_hex(8)}"
    return request.getfixturevalue("server").bucket(url).remote


@pytest.mark.parametrize(
    "kind, seed",
    [
        ("folder", 1),
        *(pytest.param("folder", seed, marks=LONG) for seed in range(2, 5)),
        *(pytest.param("moto", seed, marks=LONG) for seed in range(5, 8)),
    ],
)
def test_exactly_what_is_reachable_remains_in_a_remote(here, tmp_path, request, kind, seed):
    dice = random.Random(seed)
    versions, champions = dice.randrange(3), dice.randrange(1, 3)
    remote = remote_of(request, tmp_path, kind)
    set_remote(here.root, remote)
    push(here.root, silent)
    store, dvc = (objects_of(here.root, remote, part) for part in (STORE, DATA))
    lists = lists_of(here)
    for name in Files(here.root / ".dvc/cache").objects("files/"):
        dvc.put(name, (here.root / ".dvc/cache" / name).read_bytes())  # of earlier pushes
    before = set(store.objects())
    orphan = f"{dice.getrandbits(256):064x}"
    for name in (f"{orphan}/model/w", f"{orphan}/report-1/r", f"runs/.x.{orphan[:32]}/r"):
        store.put(name, b"")
    kept = kept_by_hand(here, versions, champions)
    do_gc(here.root, machine(versions, champions), ADA, remote=True)
    gone = {n for n in before if "/model" in n[64:72] and n[:64] not in kept}
    assert gone
    log = {n for n in store.objects() if n.startswith(("audit/", "tombstones/"))}
    assert set(store.objects()) - log == before - gone - log
    assert set(dvc.objects()) == data_by_hand(here, kept, lists)
    assert objects_of(here.root, remote, TURNS).objects() == []
    assert do_gc(here.root, machine(versions, champions), ADA, remote=True).goes == ()
    push(here.root, silent, verify=True)
    assert set(store.objects()) - log == before - gone - log
    late = empty_workspace(tmp_path / "late")
    set_remote(late.root, remote)
    pull(late.root, None, silent, everything=True)
    there = {one.model for one in read.models(late) if one.model_folder.is_dir()}
    assert there == kept
    assert len(read.models(late)) == len(SHARES)
    assert audited(late, has_remote=True).problems == ()


@contextmanager
def killed_at(monkeypatch, count):
    """Die at the removal of so many files."""
    left, unlink = [count], os.unlink

    def dying(*args, **options):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return unlink(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", dying)
        with suppress(KeyboardInterrupt):
            yield


@pytest.mark.operate
@pytest.mark.parametrize("count", [0, 3, 9, 20])
def test_a_gc_that_was_killed_is_finished_by_the_next(here, monkeypatch, count):
    set_remote(here.root, Remote(str(here.root.parent / "nas")))
    push(here.root, silent)
    with killed_at(monkeypatch, count):
        do_gc(here.root, machine(0), ADA, remote=True)
    champion = read.champion(here)
    assert verified_card(champion.model_folder).id == champion.model
    for mark in (here.root.parent / "nas" / TURNS).glob("*"):
        mark.write_text(f"{socket.gethostname()} {2**22 + 1}")  # this process lives, that one never
    do_gc(here.root, machine(0), ADA, remote=True)
    told = [e.subject for e in read_log(here).entries if e.event == "retirement"]
    assert len(told) == len(set(told)) == len(SHARES) - 1
    assert do_gc(here.root, machine(0), ADA, remote=True).goes == ()
    assert audited(here).problems == ()


@pytest.mark.operate
def test_a_retired_version_is_told_and_cannot_be_promoted_or_come_back(here, capsys):
    from uni_moe.cli import main

    set_remote(here.root, Remote(str(here.root.parent / "nas")))
    push(here.root, silent)
    do_gc(here.root, machine(0), ADA, remote=True)
    assert main(["--workspace", str(here.root), "models"]) == 0
    said = capsys.readouterr().out
    assert said.count("weights removed by ada") == len(SHARES) - 1
    with pytest.raises(LineageError, match="Version 1 was retired"):
        pull(here.root, "1", silent)
    entry = next(e for e in read_log(here).entries if e.event == "retirement")
    assert (entry.who, entry.why) == ("ada", "the disk is small")


@pytest.mark.operate
def test_old_runs_lose_what_is_bulky_and_keep_numbers_and_a_receipt(here):
    old = write_run(here, "old", status="failed", silent_s=40 * 86_400, metrics='{"step": 1}\n')
    young = write_run(here, "young", status="failed", silent_s=86_400)
    alive = write_run(here, "alive")
    for folder in (old, young, alive):
        (folder / "routing.jsonl").write_text("{}\n" * 30_000)
    set_remote(here.root, Remote(str(here.root.parent / "nas")))
    push(here.root, silent)
    do_gc(here.root, machine(9, days=30.0), ADA, remote=True)
    names = {file.name for file in old.iterdir()}
    assert names == {"run.json", "metrics.jsonl", "removed.json"}
    receipt = json.loads((old / "removed.json").read_text())
    assert receipt["files"]["routing.jsonl"]["size_bytes"] == 90_000
    assert (young / "routing.jsonl").is_file()
    assert (alive / "routing.jsonl").is_file()
    there = here.root.parent / "nas" / "store" / "runs"
    assert {file.name for file in (there / "old").iterdir()} == names
    assert (there / "young" / "routing.jsonl").is_file()
    push(here.root, silent, verify=True)


def test_nothing_is_removed_while_a_stage_runs_or_somebody_pushes(here):
    remote = Remote(str(here.root.parent / "nas"))
    set_remote(here.root, remote)
    push(here.root, silent)
    before = files(here.root)
    with only_one(here, "tune"), pytest.raises(StageError, match="runs tune in this workspace"):
        do_gc(here.root, machine(0), ADA, remote=False)
    marks = objects_of(here.root, remote, TURNS)
    with at_work(marks, "push"), pytest.raises(StoreError, match="sends to the remote"):
        do_gc(here.root, machine(0), ADA, remote=True)
    with at_work(marks, "gc"), pytest.raises(StoreError, match="removes from the remote"):
        push(here.root, silent)
    assert files(here.root) == before


def test_a_dead_ones_mark_is_passed_over(tmp_path):
    marks = Files(tmp_path / "turns")
    marks.put("push-dead", b"host 1")
    old = time.time() - 301
    os.utime(tmp_path / "turns" / "push-dead", (old, old))
    with at_work(marks, "gc"):
        assert [name[:3] for name in marks.objects()] == ["gc-"]
    assert marks.objects() == []


def test_without_a_versions_lock_dvcs_data_stays_and_it_is_told(here):
    for folder in here.store.glob("*/graph-*"):
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    plan = plan_gc(here.root, machine(9), remote=False)
    assert not [one for one in plan.goes if one.kind == "data"]
    (said,) = [one.why for one in plan.stays if one.name == "DVC's cache"]
    assert "Which data version" in said


def test_a_forgotten_version_holds_no_data(here):
    model = read.find(here, "2").model
    forget(here, "2", ADA)
    plan = do_gc(here.root, machine(9), ADA, remote=False)
    assert not [one for one in plan.stays if one.name == "DVC's cache"]
    left = {one.model for one in read.models(here)} - {model}
    named = data_by_hand(here, left, lists_of(here))
    assert {*Files(here.root / ".dvc/cache").objects("files/")} == named


def test_features_that_nothing_can_read_go(here):
    root = here.state / "features"
    for name, packages in (("image-" + "0" * 16, {"numpy": "0.0.1"}), ("image-" + "1" * 16, {})):
        (root / name).mkdir(parents=True)
        (root / name / "about.json").write_text(json.dumps({"packages": packages}))
    do_gc(here.root, machine(9, days=30.0), ADA, remote=False)
    assert [folder.name for folder in root.iterdir()] == ["image-" + "1" * 16]


def test_the_command_shows_a_plan_and_acts_only_when_told(here, capsys):
    from uni_moe.cli import main

    words = ["--workspace", str(here.root), "gc", "--keep-versions", "0", "--keep-days", "0"]
    before = files(here.root)
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "weights of retired versions" in said
    assert "nothing was removed" in said
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert not told["done"]
    assert files(here.root) == before
    assert main([*words, "--yes", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["goes"] == told["goes"]
    assert files(here.root) < before
    assert main(["--workspace", str(here.root), "disk", "--json"]) == 0
    kinds = {one["kind"]: one["size_bytes"] for one in json.loads(capsys.readouterr().out)}
    assert {"models", "reports", "records", "dvc", "artifacts", "runs", "registry"} <= set(kinds)
    assert main([*words[:3], "--keep-days", "-1"]) == 2


@pytest.mark.operate
def test_disk_counts_every_byte_once(here, capsys):
    from uni_moe.cli import main

    set_remote(here.root, Remote(str(here.root.parent / "nas")))
    push(here.root, silent)
    assert main(["--workspace", str(here.root), "disk", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    there = sum(one["size_bytes"] for one in told if one["where"] == "remote")
    nas = [f for part in (STORE, DATA) for f in (here.root.parent / "nas" / part).rglob("*")]
    assert there == sum(file.stat().st_size for file in nas if file.is_file())
    model = sum(f.stat().st_size for f in here.store.glob("*/model/**/*") if f.is_file())
    (found,) = [o for o in told if (o["where"], o["kind"]) == ("here", "models")]
    sums = sum(f.stat().st_size for f in here.store.glob("*/model.sha256"))
    assert found["size_bytes"] == model + sums
    assert main(["--workspace", str(here.root), "disk"]) == 0
    assert "weights of registered versions" in capsys.readouterr().out


def test_disk_counts_a_cache_that_lies_elsewhere(here, tmp_path, capsys):
    from uni_moe.cli import main

    def told():
        assert main(["--workspace", str(here.root), "disk", "--json"]) == 0
        found = {one["kind"]: one for one in json.loads(capsys.readouterr().out)}
        return found["dvc"]["size_bytes"], found["dvc"]["files"]

    before = told()
    elsewhere = shutil.move(here.root / ".dvc" / "cache", tmp_path / "elsewhere")
    with (here.root / ".dvc" / "config").open("a") as file:
        file.write(f"[cache]\n    dir = {elsewhere}\n")
    assert told() == before
    assert before[1] > 0


@pytest.mark.operate
def test_days_count_from_when_a_version_was_registered(here):
    plan = plan_gc(here.root, machine(0, days=1.0), remote=False)
    assert not [one for one in plan.goes if one.kind == "weights"]
    young = datetime.now(UTC) - timedelta(days=1)
    assert all(datetime.fromisoformat(one.at) > young for one in read.models(here))
    assert {one.why for one in plan.stays} == {
        "the champion",
        "younger than 1 days",
    }
    assert Path(here.root).is_dir()
