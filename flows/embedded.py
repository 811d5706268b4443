"""Prefect's settings and a server of its own: for one command, or as long as `uni-moe up` stands.

They must stand before prefect is imported. A configured Prefect (PREFECT_API_URL or PREFECT_HOME)
is left as it is.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from uni_moe import leash
from uni_moe.errors import StageError, UniMoeError

STARTUP_S = 120
PATIENCE_S = 5.0
# What the automation that ends zombies counts on: who bears the tag beats so often.
TAG = "uni-moe"
HEARTBEAT_S = 30  # Prefect's least; its own default is 180
HEARTBEAT = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S)}
_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(STARTUP_S),
    "PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT": "%H:%M:%S",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s  %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s  %(task_run_name)-20s "
    "%(message)s",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_CLI_COLORS": "false",
}
# What Prefect itself sets for a server that only one command uses.
_SERVER = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}

_NOISE = ("View at ", "Task run failed with state", "Finished in state NotReady")


def settle(state: Path) -> None:
    """Prepare this process for a flow; Prefect's own files go into the workspace's state."""
    prepare()
    quiet_logs()
    if not {"PREFECT_API_URL", "PREFECT_HOME"} & set(os.environ):
        home = (state / "prefect").resolve()
        home.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(home)
        server = Server(home, free_port(), _SERVER)
        atexit.register(server.end)
        server.start()
        os.environ["PREFECT_API_URL"] = server.url


def prepare() -> None:
    """Give Prefect our settings where nobody gave others; the heartbeat is ours in any case."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.update(HEARTBEAT)


def quiet_logs() -> None:
    """Leave out of the logs what a command or a flow says better at its end."""
    for logger in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(logger).addFilter(_told_elsewhere)


def free_port() -> int:
    """Return a port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Say whether a server may take a port at this moment."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Server:
    """A Prefect server on loopback that ends with us at the latest; its files are in `home`."""

    def __init__(self, home: Path, port: int, environment: Mapping[str, str]) -> None:
        self.home, self.port, self.environment = home, port, environment
        self.url = f"http://127.0.0.1:{port}/api"
        self.log = home / "server.log"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            StageError: it did not start.
        """
        words = ["--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1"]
        words += ["--port", str(self.port), "--log-level", "error", "--lifespan", "on"]
        self.end()
        with self.log.open("a", encoding="utf-8") as output:
            self.process = leash.start(
                "uvicorn", words, folder=self.home, environment=self.environment, output=output
            )
        deadline = time.monotonic() + STARTUP_S
        while not _answers(f"{self.url}/health"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise StageError(
                    "Prefect's server did not start.",
                    cause=f"{self.log} says why.",
                    remedy="run `dvc repro`, which needs no server, or point PREFECT_API_URL at "
                    "one.",
                )
            time.sleep(0.1)

    def end(self) -> None:
        """End it and all that it started."""
        if self.process is not None:
            leash.end(self.process, PATIENCE_S)
            self.process = None


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:  # our own server on this machine
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _told_elsewhere(record: logging.LogRecord) -> bool:
    """Leave out what the command says better at its end, and the address of a page not served."""
    if "UNI_MOE_DEBUG" in os.environ:
        return True
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, UniMoeError) and not record.getMessage().startswith(_NOISE)
