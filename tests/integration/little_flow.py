"""A program for tests: the stages of a workspace as a flow, without registry and gate."""

import sys
from pathlib import Path

from flows.embedded import settle
from uni_moe.errors import UniMoeError


def main(root: Path) -> int:
    settle(root / "state")
    from prefect import flow
    from prefect.task_runners import ThreadPoolTaskRunner

    from flows.pipeline import ended, failed, plan_stages, run_stages

    @flow(name="little", task_runner=ThreadPoolTaskRunner(max_workers=8))
    def little():
        failures = run_stages(plan_stages(root), str(root), "a test")
        return ended(failed(failures)) if failures else None

    try:
        little()
    except UniMoeError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
