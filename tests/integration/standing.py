"""Starts `uni-moe up` for a test, asks its server what it knows, and kills parts of it."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import psutil

from flows.embedded import free_port
from tests.integration.little_home import environment
from uni_moe.artifacts import Layout

PATIENCE_S = 300
PROGRAM = "tests.integration.little_home"
LITTLE_UP = ("-m", PROGRAM, "up", "{port}")


def until(true, what, patience_s=PATIENCE_S):
    """Wait until something is true, also while a server that is asked is away; return it."""
    deadline = time.monotonic() + patience_s
    while not (found := _answered(true)):
        assert time.monotonic() < deadline, f"still waiting for: {what}"
        time.sleep(0.2)
    return found


def _answered(question):
    try:
        return question()
    except OSError:
        return None


def ask(url, **body):
    """Ask a Prefect server."""
    head = {"Content-Type": "application/json"}
    with urlopen(Request(url, json.dumps(body).encode(), head), timeout=30) as answer:
        return json.load(answer)


class Up:
    """A running `uni-moe up`."""

    def __init__(self, root: Path, port: int, words=LITTLE_UP):
        self.root, self.port, self.layout = root, port, Layout(root)
        self.url = f"http://127.0.0.1:{port}/api"
        self.file = root / "state" / "up.json"
        self.output = (root / "up.log").open("a")
        self.process = subprocess.Popen(
            [sys.executable, *(word.format(port=port) for word in words)],
            cwd=root,
            env=environment(),
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def stand(self):
        """Wait until it says where everything is."""

        def told():
            assert self.process.poll() is None, (self.root / "up.log").read_text()
            return self.file.is_file()

        until(told, "uni-moe up")
        return self

    @property
    def facts(self):
        """What it said when it began to stand."""
        return json.loads(self.file.read_text())

    @property
    def server(self):
        return self._leashed("uvicorn")

    @property
    def worker(self):
        return self._leashed("worker")

    def _leashed(self, word):
        """Return the process that has a word in its command; it may have been started again."""
        (pid,) = [
            one.pid
            for one in psutil.Process(self.process.pid).children()
            if one.status() != psutil.STATUS_ZOMBIE and word in one.cmdline()
        ]
        return pid

    def ask(self, path, **body):
        """Ask Prefect's server."""
        return ask(self.url + path, **body)

    def runs(self, *types):
        """Return the flow runs in some states, oldest first."""
        told = {"flow_runs": {"state": {"type": {"any_": list(types)}}}} if types else {}
        found = self.ask("/flow_runs/filter", sort="START_TIME_ASC", **told)
        return [run for run in found if run["deployment_id"]]

    def end(self):
        """End it as Ctrl-C does, and hold that it leaves nothing behind."""
        family = family_of(self.process.pid)
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(60)
        self.output.close()
        gone(family)
        return code

    def kill(self):
        """Kill it as `kill -9` does, and hold that it leaves nothing behind."""
        family = family_of(self.process.pid)
        self.process.kill()
        self.process.wait()
        self.output.close()
        gone(family)


def family_of(pid):
    return psutil.Process(pid).children(recursive=True)


def gone(family):
    """Wait until processes have ended."""
    left = psutil.wait_procs(family, timeout=30)[1]
    assert not [one for one in left if one.status() != psutil.STATUS_ZOMBIE], left


@contextmanager
def standing(root, port=None, words=LITTLE_UP):
    up = Up(root, port or free_port(), words)
    try:
        yield up.stand()
    finally:
        if up.process.poll() is None:
            up.end()


def command(root, *words, code=0, server=None):
    """Give a command in a little home; return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM, *words],
        cwd=root,
        env=environment() | ({"PREFECT_API_URL": server} if server else {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def kill_one(pid):
    os.kill(pid, signal.SIGKILL)
