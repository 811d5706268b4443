"""A program for tests: a parent and a child that would sleep for a minute."""

import os
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    child = subprocess.Popen(["sleep", "60"])
    draft = Path(sys.argv[1] + ".draft")
    draft.write_text(f"{os.getpid()} {child.pid}")
    draft.replace(sys.argv[1])
    child.wait()
