"""`uni-moe up`: Prefect's server, a worker and the dashboard, for as long as it stands.

All of it ends with this process, also where it is killed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from flows.beside import Beside, Program
from flows.embedded import Server, port_is_free, prepare
from flows.schedule import load_schedule
from uni_moe.alone import is_at, one_standing
from uni_moe.artifacts import Layout, read_json, write_json
from uni_moe.errors import ConfigError, StageError
from uni_moe.machine import load_machine

Say = Callable[[str], None]
_LOCK, _FILE = "up", "up.json"
PORT = 4200
LOOK_S = 0.5
_SETTINGS = {
    "PREFECT_WORKER_QUERY_SECONDS": "5",
    "PREFECT_LOGGING_TO_API_ENABLED": "true",
    "PREFECT_CLIENT_MAX_RETRIES": "7",  # four minutes: a server that died comes back meanwhile
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT2S",
}


def where(layout: Layout) -> dict[str, object] | None:
    """Return what `uni-moe up` says of itself in a workspace, None where it does not stand."""
    file = layout.state / _FILE
    if not file.is_file() or not is_at(layout, _LOCK):
        return None
    found: dict[str, object] = read_json(file)
    return found


def up(layout: Layout, port: int, say: Say, program: Program | None = None) -> None:
    """Stand until a person or the system ends it, with a program beside it where one is given.

    Raises:
        ConfigError: a file of the workspace has a mistake, or the port is taken.
        StageError: it stands already, or what it starts dies again and again.
    """
    schedule, machine = load_schedule(layout.root), load_machine(layout.root)
    known = where(layout)
    if known is not None:
        raise StageError(
            f"`uni-moe up` stands already in this workspace: {known['page']}",
            cause=f"the process {known['pid']} is it.",
            remedy=f"use it, or end it with `kill {known['pid']}`.",
        )
    with one_standing(layout, _LOCK), _ended_by_signals() as stop:
        server = _server(layout, port, say)
        try:
            from flows.orchestrator import set_up  # Prefect's settings stand by now
            from flows.standing import Standing

            set_up(layout, schedule, machine, shared=server is None)
            beside = Beside(program, layout.root, folder(layout), say) if program else None
            standing = Standing(layout, schedule, server, folder(layout), say, beside)
            try:
                standing.begin()
                _tell(layout, standing.facts(), say)
                while not stop.wait(LOOK_S):
                    standing.look_after()
            finally:
                say("ending")
                standing.end()
        finally:
            (layout.state / _FILE).unlink(missing_ok=True)
            if server is not None:
                server.end()


def folder(layout: Layout) -> Path:
    """Return where the server keeps its files: PREFECT_HOME, or a folder of the workspace."""
    told = os.environ.get("PREFECT_HOME")
    return Path(told) if told else (layout.state / "up").resolve()


def _server(layout: Layout, port: int, say: Say) -> Server | None:
    """Start a server, unless PREFECT_API_URL names one; let Prefect know it in this process."""
    home = folder(layout)
    home.mkdir(parents=True, exist_ok=True)
    for name, value in {**_SETTINGS, "PREFECT_HOME": str(home)}.items():
        os.environ.setdefault(name, value)
    prepare()
    if "PREFECT_API_URL" in os.environ:
        return None
    if not port_is_free(port):
        raise ConfigError(
            f"The port {port} is taken.",
            cause="another program listens there, perhaps `uni-moe up` of another workspace.",
            remedy="name another one with `--port`.",
        )
    server = Server(home, port, {})
    say("starting Prefect's server; its first start takes longest")
    try:
        server.start()
    except BaseException:
        server.end()
        raise
    os.environ["PREFECT_API_URL"] = server.url
    return server


def _tell(layout: Layout, facts: dict[str, object], say: Say) -> None:
    facts = {"pid": os.getpid(), "since": datetime.now(UTC).isoformat(), **facts}
    write_json(layout.state / _FILE, facts)
    say("\n".join(f"{name:16} {value}" for name, value in facts.items() if value is not None))
    say("it stands; Ctrl-C ends it")


@contextmanager
def _ended_by_signals() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C and SIGTERM set."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
