"""What `uni-moe up` looks after: its server, worker and dashboard, runs that died, new data.

What dies is started again. A flow run whose process is gone is told to the server; one that crashed
is told to people, whoever found it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from httpx import HTTPError

from flows import orchestrator
from flows.beside import Beside
from flows.embedded import Server
from flows.notify import News
from flows.outbox import keep, send
from flows.schedule import Schedule, pool_of
from flows.watch import WORDS, Watch, look
from uni_moe import leash
from uni_moe.alone import has_ended
from uni_moe.artifacts import Layout, read_json, write_json
from uni_moe.errors import StageError, UniMoeError

Say = Callable[[str], None]
SWEEP_S = 10.0
SEND_S = 60.0  # after which news that did not arrive are sent again
PATIENCE_S = 15.0  # for a worker to end its runs
MOST_DEATHS, DEATHS_S = 5, 600.0
UNSTARTED_S = 120.0  # after which a run that has no process gets none


def is_dead(run: orchestrator.Working) -> bool:
    """Say whether a flow run of this machine that is said to be at work is not."""
    if run.pid is None:
        return run.silent_s > UNSTARTED_S
    return run.silent_s > SWEEP_S and has_ended(run.pid)  # its worker may be about to say how


class Standing:
    """The server and the worker of a workspace; `server` is None where it is somebody else's."""

    def __init__(  # noqa: PLR0913 - what it stands for, each by name
        self,
        layout: Layout,
        schedule: Schedule,
        server: Server | None,
        folder: Path,
        say: Say,
        beside: Beside | None = None,
    ) -> None:
        self.layout, self.schedule, self.server, self.say = layout, schedule, server, say
        self.log, self.beside = folder / "worker.log", beside
        self.pool = pool_of(schedule, layout.root)
        self.worker: subprocess.Popen[str] | None = None
        self.watch = Watch(folder / "seen.json", schedule.settle_s)
        self._deaths: list[float] = []
        self._told = layout.state / "crashed.json"  # of which runs people know
        self._next = {self._sweep: 0.0, self._tell: 0.0, self._watch: 0.0, self._send: 0.0}
        self._every_s = {self._watch: schedule.watch_every_s, self._send: SEND_S}

    def begin(self) -> None:
        """Start the worker, where the pool is one of processes."""
        self._tell()
        self._sweep()  # nothing of an earlier one is alive
        if self.schedule.pool.type == "process":
            self._start_worker()
        if self.beside is not None:
            self.beside.begin()

    def facts(self) -> dict[str, object]:
        """Return where everything is, for a person and for other commands."""
        api, kind = os.environ["PREFECT_API_URL"], self.schedule.pool.type
        server = self.server.process if self.server is not None else None
        start = shlex.join(["prefect", "worker", "start", "--pool", self.pool, "--type", kind])
        return {
            "api": api,
            "page": api.removesuffix("/api"),
            **(self.beside.facts() if self.beside is not None else {}),
            "server": server and server.pid,
            "worker": self.worker.pid if self.worker else f"none here; start it by `{start}`",
            "server log": self.server and str(self.server.log),
            "worker log": str(self.log) if self.worker else None,
            "pool": f"{self.pool} ({kind})",
            "cron": self.schedule.cron and f"{self.schedule.cron} ({self.schedule.timezone})",
            "watches": ", ".join(self.schedule.watch) or None,
        }

    def look_after(self) -> None:
        """Start again what died, and do what is due.

        Raises:
            StageError: it dies again and again.
        """
        if self.server is not None and _has_died(self.server.process):
            self._count_death("Prefect's server", self.server.log)
            self.server.start()
        if self.worker is not None and _has_died(self.worker):
            self._count_death("the worker", self.log)
            self._end_worker()
            self._start_worker()
        if self.beside is not None:
            self.beside.look_after()
        for due, at_s in self._next.items():
            if time.monotonic() >= at_s:
                try:
                    due()
                except (HTTPError, UniMoeError, OSError) as error:  # the server or a file is away
                    self.say(f"{type(error).__name__}: {error}")
                self._next[due] = time.monotonic() + self._every_s.get(due, SWEEP_S)

    def end(self) -> None:
        """End the worker and the runs that it has at work; the next start goes on with them."""
        if self.beside is not None:
            self.beside.end()
        self._end_worker()

    def _start_worker(self) -> None:
        pool = self.schedule.pool
        words = ["worker", "start", "--pool", self.pool, "--type", pool.type]
        words += ["--limit", str(pool.at_once), "--install-policy", "never"]
        with self.log.open("a", encoding="utf-8") as output:
            self.worker = leash.start(
                "prefect", words, folder=self.layout.root, environment={}, output=output
            )

    def _end_worker(self) -> None:
        """End the worker with its flows: none of them outlives it unwatched."""
        if self.worker is not None:
            leash.end(self.worker, PATIENCE_S)
            self.worker = None

    def _count_death(self, what: str, log: Path) -> None:
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < DEATHS_S] + [now]
        if len(self._deaths) > MOST_DEATHS:
            raise StageError(
                f"{what} died for the {len(self._deaths)}th time in {DEATHS_S / 60:.0f} minutes.",
                cause=f"{log} says why.",
                remedy="mend it, then give `uni-moe up` again; nothing is lost.",
            )
        self.say(f"{what} died and is started again; {log} may say why")

    def _sweep(self) -> None:
        """Tell the server which runs are dead, where they were this machine's."""
        if self.server is None or self.schedule.pool.type != "process":
            return  # runs may be of other machines; the automation ends them
        for run in orchestrator.working():
            if is_dead(run):
                why = "its process is gone"
                orchestrator.declare_dead(run.id, why)

    def _tell(self) -> None:
        """Tell people once of each run that crashed; what crashed before the first look is old."""
        found = {str(run.id): run for run in orchestrator.fallen(self.layout)}
        if not self._told.is_file():
            write_json(self._told, sorted(found))
        told = set(read_json(self._told))
        unknown = [run for name, run in found.items() if name not in told]
        for run in unknown:
            self.say(f"the flow run {run.name} has died: {run.why}")
            news = News("died", f"{run.name} died", run.why, str(self.layout.root), "up")
            keep(self.layout, news, self.say)
            told.add(str(run.id))
            write_json(self._told, sorted(told))
        if unknown:
            self._send()

    def _send(self) -> None:
        """Send news that wait, also those of flows that were killed."""
        send(self.layout, self.say)

    def _watch(self) -> None:
        """Ask for a retraining where something watched has changed and stands still."""
        now = look(self.layout, self.schedule.watch)
        changed = self.watch.changed(now, time.monotonic())
        if changed:
            reason = " and ".join(WORDS[name] for name in changed)
            run = orchestrator.submit(self.layout, self.schedule, {"reason": reason})
            self.watch.remember(now)
            self.say(f"{reason}: the flow run {run.name} is asked for")


def _has_died(process: subprocess.Popen[str] | None) -> bool:
    return process is None or process.poll() is not None
