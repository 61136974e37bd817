"""Where the kernels of the softmax run in tests: in Triton's interpreter on CPU, or compiled on a GPU."""

from __future__ import annotations

import importlib.util

import pytest
import torch


@pytest.fixture(params=["interpreted", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of the tensors. The root conftest.py turns the interpreter on, and only where there is no GPU."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed; it has wheels for Linux on x86-64 and ARM")
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU is visible")
        return torch.device("cuda:0")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, for which Triton compiles the kernels")
    return torch.device("cpu")
