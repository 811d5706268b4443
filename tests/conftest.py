"""Settings of all tests: quiet threads, no network, no model hub, routes as at the start."""

import os
import signal
import sys
import time

import pytest

BEGIN_UNTIL = os.environ.get("UNI_MOE_TESTS_BEGIN_UNTIL")  # in seconds since 1970

# Nobody's database, server or workers: what these tests start is their own.
for _name in [name for name in os.environ if name.startswith(("UNI_MOE_", "PREFECT_"))]:
    if _name not in ("UNI_MOE_PARITY_DIR", "UNI_MOE_S3_ENDPOINT", "UNI_MOE_TESTS_BEGIN_UNTIL"):
        del os.environ[_name]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
# A shell that starts us in the background lets us and what we start pass over Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item):
    """Leave out what would begin too late for the gate; it stands among the skipped tests."""
    if BEGIN_UNTIL is not None and time.time() > float(BEGIN_UNTIL):
        pytest.skip(f"the time of the gate is over: `make test-operate` runs {item.nodeid}")


@pytest.fixture(autouse=True)
def _routes_as_at_the_start():
    """A test that settles its process leaves no trace, nor does its module's fixture."""
    yield
    if "uni_moe.platform" not in sys.modules:
        return
    from uni_moe import routes
    from uni_moe.platform import take

    if routes.current() != routes.Routes():
        take(routes.Routes())
