"""A program for tests: the flow `retrain` in a workspace, as `uni-moe run` starts it."""

import sys
from pathlib import Path

from flows.embedded import settle
from uni_moe.errors import UniMoeError


def main(root: Path) -> int:
    settle(root / "state")
    from flows.pipeline import retrain_here

    try:
        retrain_here(str(root), "a test")
    except UniMoeError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
