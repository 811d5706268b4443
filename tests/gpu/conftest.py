"""What a GPU computes against what a CPU does. Without one these tests are skipped, and say so."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _on_a_gpu():
    """Skip without a GPU."""
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device to compare with its CPU")
