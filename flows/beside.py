"""A server beside Prefect's that `uni-moe up` looks after: the dashboard.

Nothing else waits for it: where it dies again and again it is left out, and the rest stands.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.embedded import port_is_free
from uni_moe import leash

PATIENCE_S = 5.0
MOST_DEATHS, DEATHS_S = 5, 600.0


@dataclass(frozen=True)
class Program:
    """What to start: a Python module with its words; where it then is, for a person."""

    name: str
    module: str
    words: Sequence[str]
    port: int

    @property
    def page(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


class Beside:
    """A program that is started again when it dies, and ends with us at the latest."""

    def __init__(
        self, program: Program, root: Path, folder: Path, say: Callable[[str], None]
    ) -> None:
        self.program, self.say, self._root = program, say, root
        self.log = folder / f"{program.name}.log"
        self.process: subprocess.Popen[str] | None = None
        self._deaths: list[float] = []

    def begin(self) -> None:
        """Start it, unless its port is taken."""
        if port_is_free(self.program.port):
            self._start()
            return
        self.say(
            f"the {self.program.name} is left out: port {self.program.port} is taken; "
            f"`--{self.program.name}-port` names another one"
        )

    def look_after(self) -> None:
        """Start it again where it died; leave it out where it does so again and again."""
        if self.process is None or self.process.poll() is None:
            return
        self.end()
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < DEATHS_S] + [now]
        if len(self._deaths) > MOST_DEATHS:
            self.say(f"the {self.program.name} dies again and again and is left out: {self.log}")
            return
        self.say(f"the {self.program.name} died and is started again; {self.log} may say why")
        self._start()

    def end(self) -> None:
        """End it and all that it started."""
        if self.process is not None:
            leash.end(self.process, PATIENCE_S)
            self.process = None

    def facts(self) -> dict[str, object]:
        """Return where it is, nothing where it is left out."""
        if self.process is None:
            return {}
        name = self.program.name
        return {name: self.program.page, f"{name} log": str(self.log)}

    def _start(self) -> None:
        with self.log.open("a", encoding="utf-8") as output:
            self.process = leash.start(
                self.program.module,
                self.program.words,
                folder=self._root,
                environment={},
                output=output,
            )
