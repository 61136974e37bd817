"""Where the kernels of the softmax run in tests: in Triton's interpreter on CPU, or compiled on a GPU."""

from __future__ import annotations

import importlib.util

import numpy as np
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


@pytest.fixture
def tf32(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products are computed in TF32. The interpreter cuts their factors to 11 bits, as tensor cores cut them."""
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    if device.type == "cpu":
        from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

        dot = InterpreterBuilder.create_dot

        def cut_dot(builder: object, left: TensorHandle, right: TensorHandle, *others: object) -> TensorHandle:
            cut = [TensorHandle((x.data.view(np.int32) & -(1 << 13)).view(np.float32), x.dtype) for x in (left, right)]
            return dot(builder, *cut, *others)

        monkeypatch.setattr(InterpreterBuilder, "create_dot", cut_dot)
