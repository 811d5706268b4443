"""A workspace with everything that `tune` reads, and ways to start it on real ranks."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import yaml
from safetensors.torch import load_file

from tests.house.code_deps import ROOT
from tests.integration.test_smallest_road import declared_params, smallest_data
from uni_moe.alone import in_turn
from uni_moe.artifacts import Layout, read_card
from uni_moe.cli import main

TIMEOUT_S = 240
SHARED_STEPS = 20


class Tuned(NamedTuple):
    """What `tune` left: every step's numbers, its routing, the adapter, the validation's losses.

    `routing` is step -> layer -> modality -> numbers, `validation_loss` modality -> before, after;
    `said_bytes` is what one process was said to need of memory before it began.
    """

    rows: list
    routing: dict
    adapter: dict
    validation_loss: dict
    said_bytes: int


def shared_for_tune(tmp_path_factory):
    """Return a copy of one workspace with everything that `tune` reads, for 20 steps.

    The first who asks makes it for all processes of this run of tests. An expert is trained with
    dropout there, whose random numbers a resume has to draw again.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    made = base / "made-for-tune"
    with in_turn(Layout(base), made.name):
        if not made.is_dir():
            data = smallest_data()
            expert = data["experts"]["audio"]
            expert |= {
                "steps": 6,
                "save_every_steps": 2,
                "lora": {**expert["lora"], "dropout": 0.1},
            }
            made_for_tune(tmp_path_factory.mktemp("making"), data, SHARED_STEPS).rename(made)
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("tune") / "space"))


def made_for_tune(root, data, steps=6):
    """Fill a workspace by all stages before `tune`, which itself takes a few steps, with states."""
    (root / "data").mkdir()
    shutil.copytree(ROOT / "data_contracts", root / "data_contracts")
    data["tune"] |= {"steps": steps, "batch_size": 6, "save_every_steps": 2}
    (root / "params.yaml").write_text(yaml.safe_dump(data))
    for stage in declared_params():
        if stage.partition("@")[0] not in ("tune", "evaluate"):
            assert main(["--workspace", str(root), stage]) == 0
    return root


def command(root, machine):
    """Return how `tune` is started in a workspace on a machine, and in which environment."""
    profile = root / f"{'-'.join(map(str, machine.values())) or 'one'}.yaml"
    profile.write_text(yaml.safe_dump(machine))
    environment = {**os.environ, "UNI_MOE_MACHINE": str(profile)}
    return [sys.executable, "-m", "uni_moe", "--workspace", str(root), "tune"], environment


def tuned(root, **machine):
    """Run `tune` to its end; return what it left.

    The ledger is what seed, params and corpus say, whoever computed a draw.
    """
    words, environment = command(root, machine)
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert main(["--workspace", str(root), "ledger", "check", "tune"]) == 0
    model = root / "artifacts/model"
    adapter = load_file(model / "adapter/adapter_model.safetensors")
    routing = {line["step"]: line["layers"] for line in _lines(root, "routing")}
    losses, said = read_card(model).results["validation_loss"], events(root)["memory"]
    return Tuned(numbers(root), routing, adapter, losses, said["needed_bytes"])


def numbers(root):
    """Return the rows of the newest run."""
    return _lines(root, "metrics")


def events(root):
    """Return event -> what the newest run told of it last."""
    return {line["event"]: line for line in _lines(root, "events")}


def _lines(root, kind):
    newest = sorted((root / "runs").glob("*-tune-*"))[-1]
    return [json.loads(line) for line in (newest / f"{kind}.jsonl").read_text().splitlines()]


def two(**machine):
    return {"launcher": "torchrun", "processes": 2, **machine}


def two_nodes(**machine):
    """Return a profile of two nodes with a rank each; both are here, and meet at a free port."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    return two(**{"processes": 1, "nodes": 2, "rendezvous": f"127.0.0.1:{port}", **machine})


def start(root, machine, said=os.devnull):
    """Start `tune`; what it says goes into the file `said`, which never fills up as a pipe does."""
    words, environment = command(root, machine)
    with Path(said).open("w", encoding="utf-8") as file:
        return subprocess.Popen(words, env=environment, stderr=file, start_new_session=True)


def ranks(root):
    """Return rank -> process id of all that run `tune` in a workspace."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            told = dict(
                pair.split(b"=", 1)
                for pair in (folder / "environ").read_bytes().split(b"\0")
                if b"=" in pair
            )
        except OSError:
            continue
        if words[-2:-1] == [b"tune"] and str(root).encode() in words and b"RANK" in told:
            found[int(told[b"RANK"])] = int(folder.name)
    return found


def wait_for(what, seconds=TIMEOUT_S):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


def has_state(root, behind=0):
    """Say whether a training state stands behind a step."""
    folders = (root / "state").glob("tune-*/step-*")
    return any(int(one.name.partition("-")[2]) > behind for one in folders if one.is_dir())


def kill_all(process, root):
    """End a launcher and all its ranks at once, as a power cut would."""
    for pid in (process.pid, *ranks(root).values()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not ranks(root))


def with_room(folder, size_bytes, words):
    """Return a command that runs another while a folder lies on a disk of so many bytes.

    What was in it is copied there before, and what is in it afterwards to `FOLDER.after`.
    """
    script = (
        'mv "$1" "$1.before" && mkdir "$1" && mount -t tmpfs -o size="$2" tmpfs "$1" '
        '&& cp -a "$1.before/." "$1" && folder="$1" && shift 2 && "$@"; code=$?; '
        'cp -a "$folder" "$folder.after"; umount "$folder"; rmdir "$folder"; '
        'mv "$folder.before" "$folder"; exit $code'
    )
    return ["unshare", "-rm", "sh", "-c", script, "sh", str(folder), str(size_bytes), *words]


def has_own_mounts():
    """Say whether this machine lets a user mount a small disk of his own."""
    if shutil.which("unshare") is None:
        return False
    words = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /tmp"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0
