import json
import os
import shutil
import subprocess
import sys

import pytest
from dvc.repo.index import Index

from flows.dvc import changed_since, failure, lock_on, plan_stages, run_module
from flows.locks import release_dead_locks
from uni_moe.errors import ConfigError, StageError
from uni_moe.workspace import make_workspace


def test_a_failed_stage_speaks_with_its_own_three_lines():
    lines = [
        "step 7",
        "error: Two files are broken:",
        "    - a.wav",
        "    - b.wav",
        "  cause:  a disk.",
        "  remedy: another disk: at once.",
        "ERROR: failed to reproduce 'ingest': exited with 3",
    ]
    error = failure("ingest", lines)
    assert error.what == "ingest: Two files are broken:\n    - a.wav\n    - b.wav"
    assert error.cause == "a disk."
    assert error.remedy == "another disk: at once."
    assert error.exit_code == 3


def test_a_stage_that_died_in_silence_shows_its_last_lines():
    error = failure("tune", ["step 7", "ERROR: failed to reproduce 'tune': exited with -9"])
    assert "step 7" in error.what
    assert "exited with -9" in error.what
    assert "uni-moe tune" in error.remedy


def test_an_error_that_was_cut_short_is_shown_as_it_stands():
    error = failure("tune", ["error: Half a", "  cause:  an error."])
    assert "Half a" in error.what


def sleeping(*words):
    """A process of these words: a new one has none yet, until it says that it runs."""
    slept = "import time; print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", slept, *words], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def test_locks_of_the_dead_and_of_strangers_are_taken_away(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    # They got the number of a DVC that is gone.
    sleeper = sleeping("my program")
    reader = sleeping("my.dvc.txt")
    dvc = sleeping("dvc", "repro")
    table = tmp_path / ".dvc" / "tmp" / "rwlock"
    table.parent.mkdir(parents=True)

    def entry(process):
        return {"pid": process.pid, "cmd": "dvc repro"}

    try:
        write = {"a": entry(dead), "b": entry(reader), "c": entry(dvc)}
        read = {"d": [entry(dead), entry(dvc)], "e": [entry(sleeper)]}
        table.write_text(json.dumps({"write": write, "read": read}))
        release_dead_locks(tmp_path, lock_on)
        assert json.loads(table.read_text()) == {
            "write": {"c": entry(dvc)},
            "read": {"d": [entry(dvc)]},
        }
    finally:
        for process in (sleeper, reader, dvc):
            process.kill()
            process.communicate()


def test_half_a_table_of_locks_is_emptied(tmp_path):
    table = tmp_path / ".dvc" / "tmp" / "rwlock"
    table.parent.mkdir(parents=True)
    table.write_text('{"write": {"a": {"pi')
    release_dead_locks(tmp_path, lock_on)
    assert json.loads(table.read_text()) == {"write": {}, "read": {}}


def test_the_leash_ends_a_process_and_its_children_with_the_one_who_holds_it(tmp_path):
    holder = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from uni_moe import leash\n"
        "leash.start('tests.unit.flows.family', [sys.argv[1]], folder=Path.cwd(), environment={})\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "pids")], env={**os.environ}
    )
    try:
        pids = wait_for(lambda: read_pids(tmp_path / "pids"))
    finally:
        process.kill()
        process.wait()
    assert len(pids) == 2
    wait_for(lambda: not any(runs(pid) for pid in pids))


def test_what_takes_too_long_is_ended_with_its_children(tmp_path):
    code = "import subprocess as s; s.Popen(['sh', '-c', 'echo $$ $PPID > pids; sleep 60']).wait()"
    said = []
    with pytest.raises(StageError, match=r"tune was ended after 2 s") as told:
        run_module(
            "timeit",
            ["-n1", "-r1", code],
            tmp_path,
            name="tune",
            environment={},
            say=said.append,
            limit_s=2,
        )
    assert "stage_limit_s" in told.value.cause
    pids = read_pids(tmp_path / "pids")
    assert pids
    wait_for(lambda: not any(runs(pid) for pid in pids))


def read_pids(file):
    words = file.read_text().split() if file.exists() else []
    return [int(word) for word in words] if len(words) == 2 else []


def runs(pid):
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_for(question):
    import time

    deadline = time.monotonic() + 20
    while not (answer := question()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return answer


def test_a_plan_reads_the_graph_once(tmp_path, monkeypatch):
    read = []
    collect = Index.from_file.__func__

    def counted(cls, *given, **named):
        read.append(given)
        return collect(cls, *given, **named)

    monkeypatch.setattr(Index, "from_file", classmethod(counted))
    assert len(plan_stages(make_workspace(tmp_path / "space", "smoke")).stages) == 21
    assert len(read) == 1


def test_raw_data_are_known_to_be_others_than_a_lock_tells(tmp_path):
    root = make_workspace(tmp_path / "space", "smoke")
    (root / "other").mkdir()
    (root / "other/a.txt").write_text("first")
    (root / "stage.py").write_text("pass")
    graph = """
stages:
  ingest:
    cmd: mkdir -p out
    deps: [other, stage.py]
    outs: [out]
"""
    (root / "dvc.yaml").write_text(graph)
    run_module("dvc", ["repro"], root, name="ingest", environment={}, say=print)
    lock = (root / "dvc.lock").read_text()
    assert changed_since(root, lock, "ingest") == []
    (root / "stage.py").write_text("import os")
    assert changed_since(root, lock, "ingest") == []
    (root / "other/b.txt").write_text("second")
    assert changed_since(root, lock, "ingest") == ["other is another one"]
    shutil.rmtree(root / "other")
    assert changed_since(root, lock, "ingest") == ["other is gone"]
    assert changed_since(root, "stages: {}", "ingest") == []
    (root / "dvc.yaml").write_text(graph.replace("ingest", "other"))
    assert changed_since(root, "stages: {}", "ingest") == []
    with pytest.raises(ConfigError, match="no stage 'ingest'"):
        changed_since(root, lock, "ingest")
