"""What a GPU computes against what a CPU does. Without one these tests are skipped, and say so."""

import pytest
import torch

from uni_moe import routes
from uni_moe.platform import take


@pytest.fixture(autouse=True)
def _on_a_gpu():
    """Skip without a GPU; leave no trace of the routes that a test took."""
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device to compare with its CPU")
    yield
    if routes.current() != routes.Routes():
        take(routes.Routes())
