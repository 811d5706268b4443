"""A program for tests: a flow that is none of ours, at work until a file lies beside its mark."""

import sys
import time
from pathlib import Path

from prefect import flow


@flow(name="foreign")
def foreign(mark: str):
    Path(mark).touch()
    while not Path(mark).with_name("go").exists():
        time.sleep(0.2)


if __name__ == "__main__":
    foreign(sys.argv[1])
