"""A flow of a workspace in a process of its own, which is forked from one that imported it all."""

import os
import sys
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from uni_moe.errors import UniMoeError

CONTEXT = get_context("forkserver")  # imports take longer than what these flows do
CONTEXT.set_forkserver_preload(["flows.deployments", "dvc.repo", __name__])


def _flow(root, way, environment, output):
    """Do what `uni-moe run` does (`run`), a schedule's tick (`tick`), or a person's word.

    That word (`champion`) is `uni-moe retrain --from champion --set seed=8`.
    """
    os.environ.clear()
    os.environ.update(environment)
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    from flows.deployments import retrain_apart
    from flows.embedded import quiet_logs
    from flows.pipeline import retrain

    quiet_logs()
    asked = partial(retrain_apart, start="champion", changes={"seed": 8})
    try:
        {"run": retrain, "tick": retrain_apart, "champion": asked}[way](str(root), "a test")
    except UniMoeError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


class Flow:
    """A flow at work, of this process's environment."""

    def __init__(self, root: Path, way: str) -> None:
        self.output = root / "said.txt"
        told = (root, way, dict(os.environ), self.output)
        self._process = CONTEXT.Process(target=_flow, args=told)
        self._process.start()

    def end(self, patience_s: float) -> tuple[int | None, str]:
        """Wait for its end; return its exit code and what it said."""
        self._process.join(patience_s)
        code = self._process.exitcode
        self._process.kill()
        return code, self.output.read_text()
