import pytest

from uni_moe import routes
from uni_moe.platform import take

START = routes.Routes()  # what a process computes by before anything settles it


@pytest.fixture(autouse=True)
def _routes_as_at_the_start():
    """A test that settles its process leaves no trace, nor does a module's fixture that does."""
    yield
    if routes.current() != START:
        take(START)
