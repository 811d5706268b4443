"""Prefect without a server of its own: settings and a server that last as long as the command.

They must stand before prefect is imported. A configured Prefect (PREFECT_API_URL or PREFECT_HOME)
is left as it is.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from uni_moe import leash
from uni_moe.errors import StageError, UniMoeError

STARTUP_S = 120
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
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    for logger in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(logger).addFilter(_told_elsewhere)
    if not {"PREFECT_API_URL", "PREFECT_HOME"} & set(os.environ):
        home = (state / "prefect").resolve()
        home.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(home)
        os.environ["PREFECT_API_URL"] = _serve(home)


def _serve(home: Path) -> str:
    """Start a server on a free port, wait until it answers, and return its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1"]
    arguments += ["--port", str(port), "--log-level", "error", "--lifespan", "on"]
    log = home / "server.log"
    with log.open("w", encoding="utf-8") as output:
        server = leash.start("uvicorn", arguments, folder=home, environment=_SERVER, output=output)
    atexit.register(leash.end, server, 5.0)
    url = f"http://127.0.0.1:{port}/api"
    deadline = time.monotonic() + STARTUP_S
    while not _answers(f"{url}/health"):
        if server.poll() is not None or time.monotonic() > deadline:
            raise StageError(
                "Prefect's server did not start.",
                cause=f"{log} says why.",
                remedy="run `dvc repro`, which needs no server, or point PREFECT_API_URL at one.",
            )
        time.sleep(0.1)
    return url


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
