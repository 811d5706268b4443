"""A stage whose processes are all killed at an instant, as a power cut would, and run again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil  # type: ignore[import-untyped] # comes with dvc

from uni_moe.artifacts import Layout, read_card
from uni_moe.errors import StageError

When = Literal["at any time", "while a state is written", "while an artifact is written"]
AT_ANY_TIME: When = "at any time"
IN_A_STATE: When = "while a state is written"
IN_AN_ARTIFACT: When = "while an artifact is written"
WRITING = (IN_A_STATE, IN_AN_ARTIFACT)
_MOMENT_S = 0.01  # a draft lives a few of them
_LAST_LINES = 20
_MOST_TRIES = 6


@dataclass(frozen=True)
class Kill:
    """An instant: a share of what the stage takes, or of a moment after a draft is seen."""

    when: When
    share: float


@dataclass
class Outcome:
    """What became of a stage that was killed, and then let run to its end, once for each kill.

    `others` counts the ends in other bytes than the undisturbed one's, or with a draft left;
    `drafts` counts kills that left a draft behind, `went_on` those that found a whole state to go
    on from; `missed` counts kills that never struck, however often they were tried.
    """

    stage: str
    processes: int
    others: int = 0
    killed: list[When] = field(default_factory=list)
    drafts: int = 0
    went_on: int = 0
    missed: int = 0
    too_late: int = 0
    seconds: float = 0.0


def ids_of(root: Path, stage: str) -> dict[str, str]:
    """Return the names and the cards' ids of what a stage has made."""
    layout = Layout(root)
    cards = {file.parent: read_card(file.parent) for file in layout.artifacts.rglob("card.json")}
    return {layout.name_of(at): card.id for at, card in cards.items() if card.stage == stage}


def run_to_the_end(root: Path, stage: str, processes: int) -> float:
    """Run a stage undisturbed; return the seconds that it takes.

    Raises:
        StageError: it failed; its last lines are told.
    """
    began = time.perf_counter()
    with _Started(root, stage, processes) as started:
        started.process.wait()
        started.check()
    return time.perf_counter() - began


def disturbed(
    root: Path, stage: str, kills: Sequence[Kill], *, processes: int, lasts_s: float
) -> Outcome:
    """Run a stage that has run before, kill it, let it end and look at its bytes, for each kill.

    Raises:
        StageError: it failed by itself.
    """
    began, expected = time.perf_counter(), ids_of(root, stage)
    outcome = Outcome(stage, processes)
    for kill in kills:
        for _ in range(_MOST_TRIES):
            started = time.perf_counter()
            if _killed(root, stage, processes, kill, lasts_s, expected):
                outcome.killed.append(kill.when)
                outcome.drafts += _half_written(root, stage, expected)
                outcome.went_on += bool(list(root.glob(f"state/{stage}-*/step-*")))
                break
            outcome.too_late += 1  # the machine is faster than it was
            lasts_s = min(lasts_s, time.perf_counter() - started)
        else:
            outcome.missed += 1
        run_to_the_end(root, stage, processes)
        left = _half_written(root, stage, expected)
        outcome.others += ids_of(root, stage) != expected or left
    outcome.seconds = time.perf_counter() - began
    return outcome


def _killed(  # noqa: PLR0913 - a stage, a kill, and what the stage makes
    root: Path,
    stage: str,
    processes: int,
    kill: Kill,
    lasts_s: float,
    makes: Collection[str],
) -> bool:
    """Start a stage and kill it; False where it came to its end first."""
    with _Started(root, stage, processes) as started:
        if kill.when == AT_ANY_TIME:
            deadline = time.perf_counter() + kill.share * lasts_s
            come = started.wait_until(lambda: time.perf_counter() >= deadline)
        else:
            come = started.wait_until(lambda: bool(_drafts(root, kill.when, stage, makes)))
            time.sleep(kill.share * _MOMENT_S)
        if come and started.kill():
            return True
        started.check()
        return False


def _drafts(root: Path, when: When, stage: str, makes: Collection[str]) -> list[Path]:
    """Return the drafts of a stage's states, or of the artifacts that it makes."""
    if when == IN_A_STATE:
        return list(root.glob(f"state/{stage}-*/.step-*"))
    targets = [root / name for name in makes]
    return [draft for one in targets for draft in one.parent.glob(f".{one.name}.*")]


def _half_written(root: Path, stage: str, makes: Collection[str]) -> bool:
    return any(_drafts(root, when, stage, makes) for when in WRITING)


class _Started:
    """A stage at work, with all its ranks."""

    def __init__(self, root: Path, stage: str, processes: int) -> None:
        self._said = root / "killed.log"
        words = ["--workspace", str(root), "--machine", str(profile(root, processes)), stage]
        with self._said.open("w", encoding="utf-8") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "uni_moe", *words], stdout=said, stderr=said
            )
        self._stage = stage

    def __enter__(self) -> _Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def wait_until(self, come: Callable[[], bool]) -> bool:
        """Return True when it has come, False when the stage has ended before."""
        while self.process.poll() is None:
            if come():
                return True
            time.sleep(0.001)
        return False

    def kill(self) -> bool:
        """End the stage and all that it started at once; False where it has ended by itself."""
        if self.process.poll() is not None:
            return False
        above = psutil.Process(self.process.pid)
        everyone = [above, *above.children(recursive=True)]
        for one in everyone:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        code = self.process.wait()
        psutil.wait_procs(everyone[1:], timeout=60)
        return code < 0

    def check(self) -> None:
        """Tell a failure of the stage's own."""
        if self.process.returncode:
            said = self._said.read_text(encoding="utf-8").splitlines()[-_LAST_LINES:]
            raise StageError(
                f"{self._stage} failed by itself:\n    " + "\n    ".join(said),
                cause="the lines above say it.",
                remedy=f"look at the workspace {self._said.parent}.",
            )


def profile(root: Path, processes: int) -> Path:
    """Write the machine profile of so many processes."""
    file = root / f"machine-{processes}.yaml"
    many = f"launcher: torchrun\nprocesses: {processes}\n"
    file.write_text(many if processes > 1 else "launcher: none\n", encoding="utf-8")
    return file
